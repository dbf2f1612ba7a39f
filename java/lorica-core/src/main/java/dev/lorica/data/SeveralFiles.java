package dev.lorica.data;

import java.nio.file.Path;
import java.util.Iterator;
import java.util.List;

/** Reads files one behind the other, as a set that is kept in pieces. */
final class SeveralFiles implements RecordReader {
    private final Iterator<Path> left;
    private RecordReader open;

    SeveralFiles(List<Path> paths) {
        left = paths.iterator();
        open = DataFile.open(left.next());
    }

    @Override
    public String format() {
        return open.format();
    }

    @Override
    public Raw next() {
        Raw raw = open.next();
        while (raw == null && left.hasNext()) {
            open.close();
            open = DataFile.open(left.next());
            raw = open.next();
        }
        return raw;
    }

    @Override
    public void close() {
        open.close();
    }
}
