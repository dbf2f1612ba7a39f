package dev.lorica.train;

/** The logistic function and what is made of it, without overflow. */
final class Logistic {
    private Logistic() {}

    static double sigmoid(double x) {
        double e = Math.exp(-Math.abs(x));
        return x >= 0 ? 1 / (1 + e) : e / (1 + e);
    }

    /** log σ(x); its derivative is σ(−x). */
    static double logSigmoid(double x) {
        return Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x)));
    }

    /** σ'(x). */
    static double slope(double x) {
        return sigmoid(x) * sigmoid(-x);
    }
}
