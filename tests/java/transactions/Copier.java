import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.tools.TransactionalMessageCopier;

/**
 * Kafka's own TransactionalMessageCopier, killed and started again, copies each record once.
 *
 * <p>It runs in the three ways it has: with partitions of its own, in a group, and in a group without telling the
 * transaction which member it is. It aborts a third of its transactions by itself.
 */
public final class Copier {
    private static final int PARTITIONS = 2;

    /** A way to run it: its options, and the partitions that each run of it copies. */
    private record Way(String name, List<String> options, boolean byPartition) { }

    private static final List<Way> WAYS = List.of(
        new Way("assigned", List.of(), true),
        new Way("group", List.of("--group-mode", "--use-group-metadata"), false),
        new Way("anonymous", List.of("--group-mode"), false));

    public static void main(String[] args) throws Exception {
        Support.main("Copier", args, Copier::run);
    }

    private static String run(Support.Options options) throws Exception {
        String input = Support.createTopic(options, "copier-input", PARTITIONS);
        int records = options.size(1_500, 40_000);
        writeInput(options, input, records);

        ExecutorService threads = Executors.newCachedThreadPool();
        Map<String, Future<Long>> running = new TreeMap<>();
        for (int i = 0; i < WAYS.size(); i++) {
            Way way = WAYS.get(i);
            long seed = options.seed() + 10L * i;
            running.put(way.name, threads.submit(() -> copy(options, way, input, records, seed, threads)));
        }
        StringBuilder hidden = new StringBuilder();
        for (Map.Entry<String, Future<Long>> way : running.entrySet()) {
            hidden.append(hidden.length() == 0 ? "" : ", ").append(way.getKey()).append(" hides ").append(way.getValue().get());
        }
        return PARTITIONS * records + " records copied once in each of " + WAYS.size() + " ways, each killed "
            + options.size(1, 4) + " times: " + hidden;
    }

    private static void writeInput(Support.Options options, String topic, int records) {
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(Support.producer(options.bootstrap()))) {
            for (int number = 0; number < records; number++) {
                for (int partition = 0; partition < PARTITIONS; partition++) {
                    producer.send(new ProducerRecord<>(topic, partition, "", Integer.toString(number)));
                }
            }
        }
    }

    /** Returns how many records the output hides. */
    private static long copy(Support.Options options, Way way, String input, int records, long seed, ExecutorService threads)
            throws Exception {
        String output = Support.createTopic(options, "copier-" + way.name, PARTITIONS);
        List<Future<?>> copying = new ArrayList<>();
        for (int partition = 0; partition < (way.byPartition ? PARTITIONS : 1); partition++) {
            String name = "copier-" + way.name + partition;
            List<String> arguments = new ArrayList<>(List.of("--broker-list", options.bootstrap(), "--input-topic", input,
                "--output-topic", output, "--input-partition", Integer.toString(partition), "--transaction-size", "50",
                "--consumer-group", options.name("copier-" + way.name), "--transactional-id", options.name(name),
                "--enable-random-aborts"));
            // With assigned partitions it asks for its position before it has ended the transaction of its former self, so
            // that it has to wait until that has timed out.
            arguments.addAll(List.of("--transaction-timeout", "3000"));
            arguments.addAll(way.options);
            Random random = new Random(seed + partition);
            copying.add(threads.submit(() -> {
                copyKilled(options, name, arguments, options.size(1, 4), random);
                return null;
            }));
        }
        for (Future<?> one : copying) one.get();

        Support.awaitNothingOpen(options, output, Duration.ofSeconds(10));
        int[] next = new int[PARTITIONS];
        Support.read(options, output, Support.COMMITTED, record -> {
            String expected = Integer.toString(next[record.partition()]++);
            Support.check(record.value().equals(expected), () -> record.topic() + "-" + record.partition() + " at "
                + record.offset() + ": " + record.value() + " in the place of " + expected);
        });
        for (int partition = 0; partition < PARTITIONS; partition++) {
            int there = next[partition];
            Support.check(there == records, () -> output + ": " + there + " records of " + records);
        }
        long hidden = Support.read(options, output, Support.UNCOMMITTED).size() - (long) PARTITIONS * records;
        Support.check(hidden > 0, () -> output + ": nothing was aborted");
        return hidden;
    }

    /** It ends by itself, well, once it has copied all there is. */
    private static void copyKilled(Support.Options options, String name, List<String> arguments, int kills, Random random)
            throws Exception {
        for (int life = 0; life <= kills; life++) {
            Child child = Child.start(options, name + " in life " + life, line -> { }, TransactionalMessageCopier.class,
                arguments.toArray(new String[0]));
            if (life == kills) {
                child.end(Duration.ofMinutes(5));
                return;
            }
            // Past its first transactions, and well before its last.
            child.await("progress", Support.PATIENCE, line -> line.contains("ProcessLoop") && !line.contains("\"totalProcessed\":0,"));
            Thread.sleep(random.nextInt(options.size(30, 300)));
            child.kill();
        }
    }
}
