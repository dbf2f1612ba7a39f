package dev.lorica.data;

/**
 * Pairs of which something is odd, and where the first of them is: file and line.
 *
 * @param equal      pairs left out because both sides are the same tokens
 * @param firstEqual {@code null}: there is none
 * @param empty      pairs left out because there is nothing to learn in a side
 * @param firstEmpty {@code null}: there is none
 * @param cut        pairs of which a side was cut to the most tokens
 * @param firstCut   {@code null}: there is none
 */
public record PairReport(long equal, String firstEqual, long empty, String firstEmpty, long cut, String firstCut) {
    static final PairReport NONE = new PairReport(0, null, 0, null, 0, null);

    PairReport withEqual(String where) {
        return new PairReport(equal + 1, firstEqual == null ? where : firstEqual, empty, firstEmpty, cut, firstCut);
    }

    PairReport withEmpty(String where) {
        return new PairReport(equal, firstEqual, empty + 1, firstEmpty == null ? where : firstEmpty, cut, firstCut);
    }

    PairReport withCut(String where) {
        return new PairReport(equal, firstEqual, empty, firstEmpty, cut + 1, firstCut == null ? where : firstCut);
    }
}
