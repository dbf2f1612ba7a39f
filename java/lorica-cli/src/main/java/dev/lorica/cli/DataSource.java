package dev.lorica.cli;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.hub.HubName;
import java.nio.file.Files;
import java.nio.file.Path;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.TypeConversionException;

/** A data file, and how often its examples are taken: {@code questions.csv:0.5}. */
record DataSource(Path path, double weight) {
    /** Of the weights of {@link dev.lorica.data.TokenizedDataset#weighted}. */
    private static final int MOST = 1000;

    static DataSource of(String text) {
        Path whole = FileName.of(text);
        int colon = text.lastIndexOf(':');
        if (colon > (HubName.is(text) ? 2 : 0) && !Files.exists(whole)) {
            try {
                double weight = Double.parseDouble(text.substring(colon + 1));
                if (!(weight > 0 && weight <= MOST)) {
                    throw new InvalidArgumentException(
                            "the weight behind the name must be more than 0 and at most " + MOST);
                }
                return new DataSource(FileName.of(text.substring(0, colon)), weight);
            } catch (NumberFormatException e) {
                // The colon belongs to the name.
            }
        }
        return new DataSource(whole, 1);
    }

    static final class Converter implements ITypeConverter<DataSource> {
        @Override
        public DataSource convert(String text) {
            try {
                return of(text);
            } catch (InvalidArgumentException e) {
                throw new TypeConversionException(e.getMessage());
            }
        }
    }

    DataSource absolute() {
        return HubName.is(path.toString())
                ? this
                : new DataSource(path.toAbsolutePath().normalize(), weight);
    }

    /** As it is written on the command line. */
    @Override
    public String toString() {
        return weight == 1 ? path.toString() : path + ":" + weight;
    }
}
