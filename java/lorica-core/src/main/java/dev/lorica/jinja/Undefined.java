package dev.lorica.jinja;

/**
 * The value of a variable, attribute or element that is not there. It is empty text, false and an empty list; anything else
 * that is done with it fails with its name.
 */
record Undefined(String name) {
    JinjaException error() {
        return new JinjaException(name + " is undefined");
    }
}
