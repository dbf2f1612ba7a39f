package dev.lorica.jinja;

/** A piece of a template that produces text. */
interface Statement {
    void run(Scope scope, StringBuilder out);
}
