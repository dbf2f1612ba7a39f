/**
 * What is trained. A {@link dev.lorica.adapter.LoraConfig} says what a new {@link dev.lorica.adapter.Adapter} looks like, its folder
 * is read and written here for llama.cpp and for Hugging Face PEFT, and {@link dev.lorica.adapter.AdapterMetadata} says how it came to
 * be. A {@link dev.lorica.adapter.ScaledAdapter} is one with a factor, of which several can be applied at once.
 */
package dev.lorica.adapter;
