/**
 * Files: what is inside a GGUF file, safetensors read and written, and files that are replaced as a whole or not at all.
 */
package dev.lorica.files;
