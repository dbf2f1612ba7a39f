/** A model and its adapters behind OpenAI's HTTP interface. */
@SuppressWarnings("requires-automatic")
module dev.lorica.serve {
    requires transitive dev.lorica;
    requires com.fasterxml.jackson.databind;
    requires jdk.httpserver;
    requires org.slf4j;

    exports dev.lorica.serve;
    exports dev.lorica.serve.runs;
}
