/**
 * The native library as Java sees it. Not part of the public interface.
 *
 * <p>Reading order: {@link dev.lorica.internal.NativeLibrary} loads it, {@link dev.lorica.internal.NativeHandle} owns what it
 * makes, {@link dev.lorica.internal.Status} turns its errors into exceptions. {@code dev.lorica.internal.c} is generated from
 * {@code lorica.h} as {@link dev.lorica.internal.c.presets.LoricaPresets} says.
 */
package dev.lorica.internal;
