package dev.lorica.jinja;

/** What can be called in a template: a macro, a function, a method. */
interface Callable {
    Object call(Arguments arguments);
}
