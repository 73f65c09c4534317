import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * Kafka Streams with exactly_once_v2 counts words exactly, though it is killed time and again.
 *
 * <p>It goes through a repartition topic and a RocksDB store with its changelog, and is started again on what it has left
 * on disk, or on nothing, when it restores the store from the changelog. In read_committed, each word's counts in the
 * output are 1, 2, 3, ..., without a gap or a repetition, up to how often the word was written; and the changelog ends
 * with the same counts.
 */
public final class WordCount {
    private static final int PARTITIONS = 2;
    private static final int WORDS = 40;

    private static final class Stop {
        volatile boolean now;
    }

    public static void main(String[] args) throws Exception {
        if (args[0].equals("streams")) {
            stream(args[1], args[2], args[3], args[4], args[5], args[6]);
        } else {
            Support.main("WordCount", args, WordCount::run);
        }
    }

    private static String run(Support.Options options) throws Exception {
        String input = Support.createTopic(options, "words", PARTITIONS);
        String output = Support.createTopic(options, "counts", PARTITIONS);
        Random random = new Random(options.seed());
        ExecutorService threads = Executors.newCachedThreadPool();
        Stop stop = new Stop();
        Future<Map<String, Long>> writing = threads.submit(() -> write(options, input, stop, new Random(options.seed() + 1)));

        int kills = options.size(2, 12);
        int wiped = options.size(2, 6);
        Path state = options.folder().resolve("state");
        Child child = start(options, input, output, state, 0);
        for (int life = 1; life <= kills; life++) {
            child.await("an output", Duration.ofSeconds(120), line -> line.startsWith("counted "));
            Thread.sleep(random.nextInt(options.size(500, 5000)));
            // In the middle of a transaction.
            child.forget();
            child.await("another output", Support.PATIENCE, line -> line.startsWith("counted "));
            child.kill();
            if (life == wiped) Support.deleteFolder(state);
            child = start(options, input, output, state, life);
        }
        child.await("an output after the last start", Duration.ofSeconds(120), line -> line.startsWith("counted "));
        stop.now = true;
        Map<String, Long> truth = writing.get();
        long total = truth.values().stream().mapToLong(Long::longValue).sum();
        awaitOutput(options, output, total);
        child.stop();
        child.end(Support.PATIENCE);

        Support.awaitNothingOpen(options, output, Duration.ofSeconds(10));
        checkOutput(options, output, truth);
        checkChangelog(options, options.name("word-count") + "-counts-changelog", truth);
        long hidden = Support.read(options, output, Support.UNCOMMITTED).size() - total;
        Support.check(hidden > 0, () -> "no kill left an output of an open transaction in the log");
        return String.format("%d words of %d kinds counted exactly, with %d kills and the state wiped once; %d outputs hidden",
            total, truth.size(), kills, hidden);
    }

    private static Child start(Support.Options options, String input, String output, Path state, int life) throws Exception {
        // As a static member it has its partitions back at once; otherwise once its former self is given up.
        String instance = life % 4 != 3 ? options.name("instance") : "";
        return Child.start(options, "word count in life " + life, line -> { }, WordCount.class, "streams",
            options.bootstrap(), options.name("word-count"), input, output, state.toString(), instance);
    }

    /** Lines of words, until it is told to stop; returns how often it has written each word. */
    private static Map<String, Long> write(Support.Options options, String topic, Stop stop, Random random) throws Exception {
        Map<String, Long> written = new TreeMap<>();
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(Support.producer(options.bootstrap()))) {
            while (!stop.now) {
                for (int line = 0; line < 5; line++) {
                    List<String> words = new ArrayList<>();
                    for (int i = 1 + random.nextInt(8); i > 0; i--) {
                        // Some are frequent, some rare.
                        String word = "word" + random.nextInt(1 + random.nextInt(WORDS));
                        words.add(word);
                        written.merge(word, 1L, Long::sum);
                    }
                    producer.send(new ProducerRecord<>(topic, random.nextInt(PARTITIONS), null, String.join(" ", words)));
                }
                Thread.sleep(20);
            }
        }
        return written;
    }

    /** Waits until so many outputs are committed; whether they are the right ones is seen later. */
    private static void awaitOutput(Support.Options options, String topic, long total) throws Exception {
        try (KafkaConsumer<String, String> consumer =
                 new KafkaConsumer<>(Support.consumer(options.bootstrap(), Support.COMMITTED))) {
            consumer.assign(Support.partitions(consumer, topic));
            long[] seen = {0, System.nanoTime()};
            while (seen[0] < total) {
                int more = consumer.poll(Duration.ofMillis(100)).count();
                if (more > 0) seen[1] = System.nanoTime();
                seen[0] += more;
                Support.check(System.nanoTime() - seen[1] < Support.PATIENCE.toNanos(),
                    () -> seen[0] + " outputs of " + total + ", and no more for " + Support.PATIENCE);
            }
        }
    }

    private static void checkOutput(Support.Options options, String topic, Map<String, Long> truth) {
        Map<String, Long> counts = new TreeMap<>();
        for (ConsumerRecord<String, String> record : Support.read(options, topic, Support.COMMITTED)) {
            long expected = counts.merge(record.key(), 1L, Long::sum);
            Support.check(record.value().equals(Long.toString(expected)), () -> record.topic() + "-" + record.partition()
                + " at " + record.offset() + ": " + record.key() + " is counted " + record.value() + " in the place of " + expected);
        }
        Support.check(counts.equals(truth), () -> "counted " + counts + "\nwritten " + truth);
    }

    /** What a store is restored from. */
    private static void checkChangelog(Support.Options options, String topic, Map<String, Long> truth) {
        Map<String, Long> counts = new TreeMap<>();
        Map<String, Object> config = Support.consumer(options.bootstrap(), Support.COMMITTED);
        config.remove(ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG);
        config.remove(ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG);
        try (KafkaConsumer<String, Long> consumer =
                 new KafkaConsumer<>(config, Serdes.String().deserializer(), Serdes.Long().deserializer())) {
            consumer.assign(Support.partitions(consumer, topic));
            Support.readTo(consumer, consumer.endOffsets(consumer.assignment()), record -> counts.put(record.key(), record.value()));
        }
        Support.check(counts.equals(truth), () -> "the changelog says " + counts + "\nwritten was " + truth);
    }

    /** The process that counts. */
    private static void stream(String bootstrap, String application, String input, String output, String state, String instance)
            throws InterruptedException {
        Properties config = new Properties();
        config.putAll(Map.of(
            StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap,
            StreamsConfig.APPLICATION_ID_CONFIG, application,
            StreamsConfig.STATE_DIR_CONFIG, state,
            StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2,
            StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100,
            StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2,
            StreamsConfig.REPLICATION_FACTOR_CONFIG, 1,
            // Every count is an output.
            StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0,
            StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class,
            StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class));
        config.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        config.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG), 6000);
        config.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG), 500);
        if (!instance.isEmpty()) config.put(StreamsConfig.consumerPrefix(ConsumerConfig.GROUP_INSTANCE_ID_CONFIG), instance);
        // By itself it would send next to nothing before it commits, so that a kill would leave nothing behind.
        config.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 0);
        // A wiped state folder had the former self's transactional ids: its open transaction has to time out.
        config.put(StreamsConfig.producerPrefix(ProducerConfig.TRANSACTION_TIMEOUT_CONFIG), 4000);

        StreamsBuilder builder = new StreamsBuilder();
        builder.<String, String>stream(input)
            .flatMapValues(line -> Arrays.asList(line.split(" ")))
            .groupBy((key, word) -> word, Grouped.as("by-word"))
            .count(Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("counts"))
            .toStream()
            .mapValues(count -> Long.toString(count))
            .peek((word, count) -> System.out.println("counted " + word))
            .to(output);
        KafkaStreams streams = new KafkaStreams(builder.build(), config);
        streams.setUncaughtExceptionHandler(e -> {
            e.printStackTrace();
            // Not to be healed: the parent has to see it.
            Runtime.getRuntime().halt(1);
            return StreamThreadExceptionResponse.SHUTDOWN_APPLICATION;
        });
        streams.start();
        Child.awaitStop();
        if (!streams.close(Duration.ofSeconds(30))) throw new Support.Broken("the streams do not close");
    }
}
