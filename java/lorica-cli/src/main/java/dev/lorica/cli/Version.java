package dev.lorica.cli;

import picocli.CommandLine.IVersionProvider;

/** The version of the jar, and what it runs on. */
final class Version implements IVersionProvider {
    static String lorica() {
        String version = Version.class.getPackage().getImplementationVersion();
        return version == null ? "development" : version;
    }

    @Override
    public String[] getVersion() {
        return new String[] {
            "lorica " + lorica() + " (Java " + System.getProperty("java.version") + ", " + System.getProperty("os.name")
                    + " " + System.getProperty("os.arch") + ")"
        };
    }
}
