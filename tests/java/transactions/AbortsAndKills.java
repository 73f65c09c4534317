import static java.util.stream.Collectors.toMap;

import java.io.PrintStream;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

/**
 * Transactions are all or nothing, whatever becomes of their producers.
 *
 * <p>Several processes write transactions to the partitions of one topic; they abort some, and are killed in the middle of
 * others and started again with the same transactional id. Consumers in read_committed, one that has been reading all
 * along and one that reads at the end, see of each partition the same records: all of each committed transaction, once and
 * in order, none of one that was aborted or left open, and all or nothing of one that was killed while committing.
 * A consumer in read_uncommitted sees records of aborted ones too, so there was something to hide.
 */
public final class AbortsAndKills {
    private static final int PARTITIONS = 4;

    private enum State { OPEN, ABORTED, COMMITTING, COMMITTED }

    private static final class Transaction {
        final int records;
        volatile State state = State.OPEN;
        /** Its writer was killed in it. */
        volatile boolean killed;

        Transaction(int records) {
            this.records = records;
        }
    }

    /** Transactions by name, which is WRITER.LIFE.NUMBER. */
    private final Map<String, Transaction> transactions = new ConcurrentHashMap<>();

    public static void main(String[] args) throws Exception {
        if (args[0].equals("writer")) {
            write(args[1], args[2], args[3], Integer.parseInt(args[4]), Long.parseLong(args[5]));
        } else {
            Support.main("AbortsAndKills", args, options -> new AbortsAndKills().run(options));
        }
    }

    private String run(Support.Options options) throws Exception {
        String topic = Support.createTopic(options, "aborts-and-kills", PARTITIONS);
        int writers = options.size(3, 4);
        CompletableFuture<Map<TopicPartition, Long>> ends = new CompletableFuture<>();
        Reading live = new Reading();
        ExecutorService threads = Executors.newCachedThreadPool();
        Future<?> reading = threads.submit(() -> readAllAlong(options, topic, ends, live));
        List<Future<?>> writing = new ArrayList<>();
        for (int writer = 0; writer < writers; writer++) {
            String id = options.name("writer" + writer);
            long seed = options.seed() + writer;
            writing.add(threads.submit(() -> {
                killAndRestart(options, topic, id, new Random(seed));
                return null;
            }));
        }
        for (Future<?> one : writing) one.get();

        // The last lives ended well, so nothing is open.
        Support.awaitNothingOpen(options, topic, Duration.ofSeconds(10));
        ends.complete(Support.ends(options, topic, Support.COMMITTED));
        reading.get(Support.PATIENCE.toSeconds(), TimeUnit.SECONDS);
        Reading after = new Reading();
        Support.read(options, topic, Support.COMMITTED, after::take);
        Reading everything = new Reading();
        Support.read(options, topic, Support.UNCOMMITTED, everything::take);

        live.checkCommitted("the consumer that read all along");
        after.checkCommitted("the consumer that read at the end");
        Support.check(live.seen.equals(after.seen), () -> "the two consumers in read_committed saw different transactions");
        Support.check(everything.seen.entrySet().containsAll(after.seen.entrySet()),
            () -> "read_uncommitted does not see all that read_committed sees");
        long hidden = everything.countIn(State.ABORTED, false);
        long open = everything.countIn(State.OPEN, true);
        Support.check(hidden > 0, () -> "nothing was aborted: no record of an aborted transaction is in the log");
        Support.check(open > 0, () -> "no kill left a record of an open transaction in the log");
        return String.format("%d transactions committed, %d aborted, %d killed while open, %d while committing (of which %d are"
                + " there); %d records committed, %d hidden", count(State.COMMITTED), count(State.ABORTED), count(State.OPEN),
            count(State.COMMITTING), after.countIn(State.COMMITTING, true), after.records, everything.records - after.records);
    }

    private long count(State state) {
        return transactions.values().stream().filter(transaction -> transaction.state == state).count();
    }

    private void killAndRestart(Support.Options options, String topic, String id, Random random) throws Exception {
        int kills = options.size(3, 12);
        for (int life = 0; life <= kills; life++) {
            Child child = Child.start(options, id + " in life " + life, this::said, AbortsAndKills.class, "writer",
                options.bootstrap(), topic, id, Integer.toString(life), Long.toString(random.nextLong()));
            if (life == 1) {
                // Also one that is killed while it starts.
                Thread.sleep(random.nextInt(1000));
            } else {
                child.await("a first commit", Support.PATIENCE, line -> line.startsWith("committed "));
                Thread.sleep(random.nextInt(options.size(600, 8000)));
            }
            if (life == kills) {
                child.stop();
                child.end(Support.PATIENCE);
            } else {
                // Some kills at any moment, some right where records of an open transaction are in the log.
                child.forget();
                if (life % 2 == 0) child.await("a flush", Support.PATIENCE, line -> line.startsWith("flushed "));
                child.kill();
                transactions.forEach((name, transaction) -> {
                    boolean ended = transaction.state == State.ABORTED || transaction.state == State.COMMITTED;
                    if (name.startsWith(id + ".") && !ended) transaction.killed = true;
                });
            }
        }
    }

    private void said(String line) {
        String[] words = line.split(" ");
        switch (words[0]) {
            case "begin" -> transactions.put(words[1], new Transaction(Integer.parseInt(words[2])));
            case "aborting" -> transactions.get(words[1]).state = State.ABORTED;
            case "committing" -> transactions.get(words[1]).state = State.COMMITTING;
            case "committed" -> transactions.get(words[1]).state = State.COMMITTED;
            default -> { }
        }
    }

    /** The writer's process: says what it is about to do before it does it, and that it is committed once it is. */
    private static void write(String bootstrap, String topic, String id, int life, long seed) {
        PrintStream out = System.out;
        Random random = new Random(seed);
        // Small batches, so that a transaction is several.
        Map<String, Object> config = Support.producer(bootstrap, "transactional.id", id, "batch.size", 512, "linger.ms", 0);
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(config)) {
            producer.initTransactions();
            for (int number = 0; !Child.isStopping(); number++) {
                String name = id + "." + life + "." + number;
                int records = 1 + random.nextInt(random.nextInt(10) == 0 ? 300 : 40);
                int flushAt = random.nextBoolean() ? random.nextInt(records) : -1;
                out.println("begin " + name + " " + records);
                producer.beginTransaction();
                for (int record = 0; record < records; record++) {
                    int partition = random.nextInt(PARTITIONS);
                    producer.send(new ProducerRecord<>(topic, partition, name, Integer.toString(record)));
                    if (record == flushAt) {
                        producer.flush();
                        out.println("flushed " + name);
                        sleep(random.nextInt(20));
                    }
                }
                if (random.nextInt(4) == 0) {
                    out.println("aborting " + name);
                    producer.abortTransaction();
                } else {
                    out.println("committing " + name);
                    producer.commitTransaction();
                    out.println("committed " + name);
                }
                sleep(random.nextInt(10));
            }
        }
    }

    private static void sleep(long ms) {
        try {
            Thread.sleep(ms);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private static void readAllAlong(Support.Options options, String topic, CompletableFuture<Map<TopicPartition, Long>> ends,
            Reading reading) {
        Map<String, Object> config = Support.consumer(options.bootstrap(), Support.COMMITTED);
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config)) {
            consumer.assign(Support.partitions(consumer, topic));
            while (!ends.isDone()) consumer.poll(Duration.ofMillis(100)).forEach(reading::take);
            Support.readTo(consumer, ends.join(), reading::take);
        }
    }

    /** What a consumer has seen. */
    private final class Reading {
        final Map<String, BitSet> seen = new HashMap<>();
        long records;
        /** By partition and writer: life, number of the transaction, number of the record. */
        private final Map<String, int[]> last = new HashMap<>();

        void take(ConsumerRecord<String, String> record) {
            String name = record.key();
            int number = Integer.parseInt(record.value());
            String where = record.topic() + "-" + record.partition() + " at " + record.offset();
            BitSet numbers = seen.computeIfAbsent(name, unseen -> new BitSet());
            Support.check(!numbers.get(number), () -> where + ": record " + number + " of " + name + " is there twice");
            numbers.set(number);
            records++;

            String[] parts = name.split("\\.");
            int[] position = {Integer.parseInt(parts[1]), Integer.parseInt(parts[2]), number};
            int[] before = last.put(record.partition() + " " + parts[0], position);
            Support.check(before == null || Arrays.compare(before, position) < 0,
                () -> where + ": record " + number + " of " + name + " comes after a later one");
        }

        /** Only once all that the writers have said has been heard: records may be here sooner than the lines. */
        void checkCommitted(String who) {
            for (String name : seen.keySet()) {
                Support.check(transactions.containsKey(name), () -> who + " saw a transaction that nobody began, " + name);
            }
            Map<String, Integer> found = seen.entrySet().stream()
                .collect(toMap(Map.Entry::getKey, entry -> entry.getValue().cardinality()));
            transactions.forEach((name, transaction) -> {
                int there = found.getOrDefault(name, 0);
                boolean right = switch (transaction.state) {
                    case COMMITTED -> there == transaction.records;
                    case COMMITTING -> there == 0 || there == transaction.records;
                    case OPEN, ABORTED -> there == 0;
                };
                Support.check(right, () -> String.format("%s saw %d of the %d records of %s, which was %s%s", who, there,
                    transaction.records, name, transaction.state, transaction.killed ? " when its writer was killed" : ""));
            });
        }

        long countIn(State state, boolean killed) {
            return seen.keySet().stream().map(transactions::get)
                .filter(transaction -> transaction.state == state && transaction.killed == killed).count();
        }
    }
}
