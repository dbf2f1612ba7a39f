package dev.lorica.cli;

/** Command lines to be copied. */
final class Shell {
    private Shell() {}

    /** How this program was started: a wrapper says so in the property {@code lorica.command}. */
    static String program() {
        return System.getProperty("lorica.command", "lorica");
    }

    /** {@code word} as a POSIX shell reads it as one word. */
    static String quote(String word) {
        if (word.matches("[A-Za-z0-9_@%+=:,./-]+")) {
            return word;
        }
        return word.matches("[^\"$`\\\\!\\n]*") ? "\"" + word + "\"" : "'" + word.replace("'", "'\\''") + "'";
    }
}
