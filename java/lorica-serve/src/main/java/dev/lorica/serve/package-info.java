/**
 * A model and its adapters behind OpenAI's HTTP interface, on the JDK's own server: {@link dev.lorica.serve.LoricaServer}, as a
 * {@link dev.lorica.serve.ServeConfig} says.
 */
package dev.lorica.serve;
