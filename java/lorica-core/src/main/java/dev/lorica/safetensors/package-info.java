/**
 * The safetensors file format: {@link dev.lorica.safetensors.SafetensorsFile} reads, checking everything first,
 * {@link dev.lorica.safetensors.SafetensorsWriter} writes.
 */
package dev.lorica.safetensors;
