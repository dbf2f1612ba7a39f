package dev.lorica.adapter;

import dev.lorica.exceptions.InvalidArgumentException;
import java.util.List;
import java.util.Random;

/**
 * PEFT's {@code init_lora_weights="orthogonal"}: with an orthogonal Q of the rank, A = (N Q_odd)ᵀ / 10 and B = M Q_even / 10 for
 * normal N [in, r/2] and M [out, r/2]. Rows of Q are orthogonal, so B A is zero.
 */
final class OrthogonalInit {
    private static final double SCALE = 0.1;

    private OrthogonalInit() {}

    /** @throws InvalidArgumentException for an odd rank */
    static void fill(Adapter adapter, long seed) {
        List<Adapter.Tensor> tensors = adapter.tensors();
        for (int i = 0; i + 1 < tensors.size() && tensors.get(i).isA(); i += 2) {
            Adapter.Tensor a = tensors.get(i);
            int rank = Math.toIntExact(a.rows());
            if (rank % 2 != 0) {
                throw new InvalidArgumentException(
                        "init orthogonal needs even ranks; that of " + a.name() + " is " + rank);
            }
            // One stream of numbers for each pair, so that what else is adapted changes nothing.
            Random random = new Random(seed * 0x9e3779b97f4a7c15L + a.name().hashCode());
            double[][] q = orthogonal(rank, random);
            adapter.setValues(i, values(q, 0, Math.toIntExact(a.columns()), random, true));
            adapter.setValues(
                    i + 1, values(q, 1, Math.toIntExact(tensors.get(i + 1).rows()), random, false));
        }
    }

    /** Normal [n, r/2] times every second row of Q: [n, r], or transposed [r, n]. */
    private static float[] values(double[][] q, int first, int n, Random random, boolean transposed) {
        int rank = q.length;
        float[] values = new float[n * rank];
        double[] row = new double[rank / 2];
        for (int i = 0; i < n; i++) {
            for (int k = 0; k < row.length; k++) {
                row[k] = SCALE * random.nextGaussian();
            }
            for (int j = 0; j < rank; j++) {
                double sum = 0;
                for (int k = 0; k < row.length; k++) {
                    sum += row[k] * q[first + 2 * k][j];
                }
                values[transposed ? j * n + i : i * rank + j] = (float) sum;
            }
        }
        return values;
    }

    /** Rows of normal numbers made orthonormal one after another, twice, which is exact enough (Gram and Schmidt). */
    private static double[][] orthogonal(int rank, Random random) {
        double[][] rows = new double[rank][rank];
        for (int i = 0; i < rank; i++) {
            for (int j = 0; j < rank; j++) {
                rows[i][j] = random.nextGaussian();
            }
            for (int pass = 0; pass < 2; pass++) {
                for (int other = 0; other < i; other++) {
                    double dot = dot(rows[i], rows[other]);
                    for (int j = 0; j < rank; j++) {
                        rows[i][j] -= dot * rows[other][j];
                    }
                }
            }
            double norm = Math.sqrt(dot(rows[i], rows[i]));
            for (int j = 0; j < rank; j++) {
                rows[i][j] /= norm;
            }
        }
        return rows;
    }

    private static double dot(double[] a, double[] b) {
        double sum = 0;
        for (int j = 0; j < a.length; j++) {
            sum += a[j] * b[j];
        }
        return sum;
    }
}
