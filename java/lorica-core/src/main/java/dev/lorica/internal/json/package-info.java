/** How records are written as JSON. Not part of the public interface. */
package dev.lorica.internal.json;
