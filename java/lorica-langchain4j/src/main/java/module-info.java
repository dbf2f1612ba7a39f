/** LangChain4j's chat, streaming and embedding models over a model on this machine and its adapters. */
@SuppressWarnings({"requires-automatic", "requires-transitive-automatic"})
module dev.lorica.langchain4j {
    requires transitive dev.lorica;
    requires transitive langchain4j.core;
    requires org.slf4j;

    exports dev.lorica.langchain4j;
}
