/** Fine-tuning and running quantized models. */
@SuppressWarnings("requires-automatic")
module dev.lorica {
    requires transitive dev.lorica.engine;
    requires com.fasterxml.jackson.databind;
    requires de.siegmar.fastcsv;
    requires java.logging;
    requires java.net.http;
    requires org.slf4j;
    // made for Java 21, and only touched when a Parquet file is read
    requires static dev.hardwood.core;

    exports dev.lorica;
    exports dev.lorica.adapter;
    exports dev.lorica.convert;
    exports dev.lorica.data;
    exports dev.lorica.eval;
    exports dev.lorica.files;
    exports dev.lorica.generate;
    exports dev.lorica.grammar;
    exports dev.lorica.hub;
    exports dev.lorica.log;
    exports dev.lorica.train;

    // records that are not public are written as JSON too
    opens dev.lorica.adapter to
            com.fasterxml.jackson.databind;
    opens dev.lorica.internal.json to
            com.fasterxml.jackson.databind;
    opens dev.lorica.train to
            com.fasterxml.jackson.databind;
}
