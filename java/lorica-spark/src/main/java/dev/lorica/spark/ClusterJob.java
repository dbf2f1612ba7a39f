package dev.lorica.spark;

import dev.lorica.exceptions.LoricaException;
import java.io.Serializable;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import org.apache.spark.SimpleFutureAction;
import org.apache.spark.SparkJobInfo;
import org.apache.spark.SparkStageInfo;
import org.apache.spark.api.java.JavaSparkContext;
import scala.collection.Iterator;
import scala.jdk.javaapi.CollectionConverters;
import scala.runtime.AbstractFunction0;
import scala.runtime.AbstractFunction1;
import scala.runtime.AbstractFunction2;
import scala.runtime.BoxedUnit;

/**
 * A Spark job of one task for each item, whose results can be had one by one as they come.
 *
 * @param <R> results
 */
final class ClusterJob<R> {
    /** Seconds without an executor that takes a task after which a job is given up; 120 unless it is said. */
    static final String WAIT = "spark.lorica.wait";

    /**
     * What is done with an item on an executor.
     *
     * @param <T> the item
     * @param <R> its result
     */
    interface Work<T, R> extends Function<T, R>, Serializable {}

    private final JavaSparkContext spark;
    private final BlockingQueue<R> arrived = new LinkedBlockingQueue<>();
    private final SimpleFutureAction<BoxedUnit> action;
    private final long waitSeconds;
    private long lastSeen = System.nanoTime();

    <T> ClusterJob(JavaSparkContext spark, List<T> items, Work<T, R> work) {
        this.spark = spark;
        this.waitSeconds = spark.getConf().getInt(WAIT, 120);
        List<Object> partitions = new ArrayList<>();
        for (int i = 0; i < items.size(); i++) {
            partitions.add(i);
        }
        this.action = spark.sc()
                .submitJob(
                        spark.parallelize(items, items.size()).rdd(),
                        new OnExecutor<>(work),
                        CollectionConverters.asScala(partitions).toSeq(),
                        new Arrival<>(arrived),
                        new Nothing());
    }

    /**
     * The next result; {@code null}: none came for a tenth of a second.
     *
     * @throws LoricaException if Spark has given up the job, or no executor takes its tasks
     */
    R next() throws InterruptedException {
        R result = arrived.poll(100, TimeUnit.MILLISECONDS);
        if (result != null) {
            lastSeen = System.nanoTime();
            return result;
        }
        if (action.isCompleted() && arrived.isEmpty()) {
            Throwable cause = action.value().get().failed().get();
            throw new LoricaException("Spark has given up: " + cause.getMessage(), cause);
        }
        if (isRunning()) {
            lastSeen = System.nanoTime();
        } else if (System.nanoTime() - lastSeen > TimeUnit.SECONDS.toNanos(waitSeconds)) {
            throw noSlots();
        }
        return null;
    }

    void cancel() {
        action.cancel();
    }

    private boolean isRunning() {
        for (Object id : CollectionConverters.asJava(action.jobIds())) {
            SparkJobInfo info = spark.statusTracker().getJobInfo((Integer) id);
            for (int stage : info == null ? new int[0] : info.stageIds()) {
                SparkStageInfo found = spark.statusTracker().getStageInfo(stage);
                if (found != null && found.numActiveTasks() > 0) {
                    return true;
                }
            }
        }
        return false;
    }

    private LoricaException noSlots() {
        int there = spark.sc().statusTracker().getExecutorInfos().length - 1;
        return new LoricaException("no executor took a task for " + waitSeconds + " s: "
                + (there < 1
                        ? "the cluster at " + spark.master() + " gives this application no executor"
                        : "the " + there + " executors of the cluster at " + spark.master() + " have no free slot of "
                                + spark.getConf().get("spark.task.cpus", "1") + " cores (spark.task.cpus)")
                + "; free some, ask for less, or wait longer (" + WAIT + ")");
    }

    private static final class OnExecutor<T, R> extends AbstractFunction1<Iterator<T>, R> implements Serializable {
        private static final long serialVersionUID = 1L;
        private final Work<T, R> work;

        OnExecutor(Work<T, R> work) {
            this.work = work;
        }

        @Override
        public R apply(Iterator<T> items) {
            return work.apply(items.next());
        }
    }

    private static final class Arrival<R> extends AbstractFunction2<Object, R, BoxedUnit> {
        private final BlockingQueue<R> arrived;

        Arrival(BlockingQueue<R> arrived) {
            this.arrived = arrived;
        }

        @Override
        public BoxedUnit apply(Object partition, R result) {
            arrived.add(result);
            return BoxedUnit.UNIT;
        }
    }

    private static final class Nothing extends AbstractFunction0<BoxedUnit> {
        @Override
        public BoxedUnit apply() {
            return BoxedUnit.UNIT;
        }
    }
}
