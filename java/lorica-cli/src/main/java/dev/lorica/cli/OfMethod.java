package dev.lorica.cli;

import dev.lorica.adapter.Method;
import java.lang.annotation.ElementType;
import java.lang.annotation.Retention;
import java.lang.annotation.RetentionPolicy;
import java.lang.annotation.Target;

/** That an option belongs to these methods of adaptation; all others refuse it. */
@Retention(RetentionPolicy.RUNTIME)
@Target(ElementType.FIELD)
@interface OfMethod {
    Method[] value();
}
