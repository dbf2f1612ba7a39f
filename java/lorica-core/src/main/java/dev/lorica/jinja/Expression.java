package dev.lorica.jinja;

/** A piece of a template that has a value. */
interface Expression {
    Object value(Scope scope);
}
