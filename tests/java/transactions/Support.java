import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** What the mains of this folder share: options, deadlines, clients' configs, and reading a topic to its end. */
final class Support {
    /** How long one step may take before it counts as hung. */
    static final Duration PATIENCE = Duration.ofSeconds(60);
    static final String COMMITTED = "read_committed";
    static final String UNCOMMITTED = "read_uncommitted";

    /** What the test was told, and a folder that goes with it; {@code run} makes the names of each run its own. */
    record Options(String bootstrap, boolean small, long seed, Path transcript, String run, Path folder) {
        static Options parse(String[] args) throws IOException {
            String bootstrap = null;
            boolean small = false;
            long seed = System.nanoTime() % 1_000_000;
            Path transcript = null;
            for (int i = 0; i < args.length; i++) {
                switch (args[i]) {
                    case "--bootstrap" -> bootstrap = args[++i];
                    case "--short" -> small = true;
                    case "--seed" -> seed = Long.parseLong(args[++i]);
                    case "--transcript" -> transcript = Path.of(args[++i]);
                    default -> throw new IllegalArgumentException("no such option: " + args[i]);
                }
            }
            if (bootstrap == null) throw new IllegalArgumentException("--bootstrap HOST:PORT is missing");
            String run = Long.toString(System.currentTimeMillis(), 36);
            return new Options(bootstrap, small, seed, transcript, run, Files.createTempDirectory("transactions-"));
        }

        String name(String what) {
            return what + "-" + run;
        }

        int size(int inShort, int inLong) {
            return small ? inShort : inLong;
        }
    }

    /** A test: returns what it found, in one line, or throws. */
    interface Test {
        String run(Options options) throws Exception;
    }

    /** The guarantee that was broken. */
    static final class Broken extends RuntimeException {
        Broken(String what) {
            super(what);
        }
    }

    private Support() { }

    /** Runs a test and ends the JVM: 0 with its summary, 1 with what went wrong, 2 where it has not ended in time. */
    static void main(String name, String[] args, Test test) throws IOException {
        Options options = Options.parse(args);
        Duration limit = options.small ? Duration.ofMinutes(3) : Duration.ofMinutes(20);
        Thread running = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> cleanUp(options)));
        daemon("limit", () -> {
            Thread.sleep(limit.toMillis());
            System.err.println(name + " FAILED: not done within " + limit + ", seed " + options.seed);
            for (StackTraceElement frame : running.getStackTrace()) System.err.println("    at " + frame);
            end(options, 2);
            return null;
        });
        long began = System.nanoTime();
        try {
            String summary = test.run(options);
            System.out.printf("%s: %s; seed %d, %d s%n", name, summary, options.seed, (System.nanoTime() - began) / 1_000_000_000);
            end(options, 0);
        } catch (Throwable thrown) {
            Throwable e = cause(thrown);
            System.err.println(name + " FAILED: " + e.getMessage() + "; seed " + options.seed);
            if (!(e instanceof Broken)) e.printStackTrace();
            end(options, 1);
        }
    }

    /** Clients' threads that are left are not waited for. */
    private static void end(Options options, int code) {
        cleanUp(options);
        System.out.flush();
        System.err.flush();
        Runtime.getRuntime().halt(code);
    }

    private static synchronized void cleanUp(Options options) {
        Child.killAll();
        deleteFolder(options.folder);
    }

    static void deleteFolder(Path folder) {
        if (!Files.exists(folder)) return;
        try (Stream<Path> paths = Files.walk(folder)) {
            for (Path path : paths.sorted((a, b) -> b.compareTo(a)).collect(Collectors.toList())) Files.deleteIfExists(path);
        } catch (IOException e) {
            System.err.println(folder + " stays behind: " + e);
        }
    }

    static Thread daemon(String name, Callable<?> body) {
        Thread thread = new Thread(() -> {
            try {
                body.call();
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            } catch (Exception e) {
                throw new IllegalStateException(name + ": " + e.getMessage(), e);
            }
        }, name);
        thread.setDaemon(true);
        thread.start();
        return thread;
    }

    static void check(boolean holds, Supplier<String> otherwise) {
        if (!holds) throw new Broken(otherwise.get());
    }

    /** Waits until it holds, and says how long that took, in milliseconds. */
    static long await(String what, Duration patience, Callable<Boolean> holds) throws Exception {
        long began = System.nanoTime();
        while (!holds.call()) {
            if (System.nanoTime() - began > patience.toNanos()) throw new Broken(what + ": not within " + patience);
            Thread.sleep(20);
        }
        return (System.nanoTime() - began) / 1_000_000;
    }

    static Admin admin(Options options) {
        return Admin.create(Map.of("bootstrap.servers", options.bootstrap));
    }

    static String createTopic(Options options, String what, int partitions) throws Exception {
        String topic = options.name(what);
        try (Admin admin = admin(options)) {
            admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get(60, TimeUnit.SECONDS);
        }
        return topic;
    }

    static Map<String, Object> producer(String bootstrap, Object... more) {
        Map<String, Object> config = new HashMap<>();
        config.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        config.put(ProducerConfig.KEY_SERIALIZER_CLASS_CONFIG, StringSerializer.class);
        config.put(ProducerConfig.VALUE_SERIALIZER_CLASS_CONFIG, StringSerializer.class);
        return with(config, more);
    }

    static Map<String, Object> consumer(String bootstrap, String isolation, Object... more) {
        Map<String, Object> config = new HashMap<>();
        config.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        config.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, isolation);
        config.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        config.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        config.put(ConsumerConfig.FETCH_MAX_WAIT_MS_CONFIG, 100);
        config.put(ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, StringDeserializer.class);
        config.put(ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, StringDeserializer.class);
        return with(config, more);
    }

    private static Map<String, Object> with(Map<String, Object> config, Object... more) {
        for (int i = 0; i < more.length; i += 2) config.put((String) more[i], more[i + 1]);
        return config;
    }

    static List<TopicPartition> partitions(KafkaConsumer<?, ?> consumer, String topic) {
        return consumer.partitionsFor(topic).stream().map(info -> new TopicPartition(topic, info.partition()))
            .collect(Collectors.toList());
    }

    /** All partitions' ends: in read_committed, the last stable offsets. */
    static Map<TopicPartition, Long> ends(Options options, String topic, String isolation) {
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(consumer(options.bootstrap, isolation))) {
            return new HashMap<>(consumer.endOffsets(partitions(consumer, topic)));
        }
    }

    /** Waits until no transaction is open in the topic: its last stable offsets are its ends. */
    static long awaitNothingOpen(Options options, String topic, Duration patience) throws Exception {
        return await("no open transaction in " + topic, patience,
            () -> ends(options, topic, COMMITTED).equals(ends(options, topic, UNCOMMITTED)));
    }

    /** Reads the topic from its beginning to what is its end now. */
    static void read(Options options, String topic, String isolation, Consumer<ConsumerRecord<String, String>> take) {
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(consumer(options.bootstrap, isolation))) {
            List<TopicPartition> partitions = partitions(consumer, topic);
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            readTo(consumer, consumer.endOffsets(partitions), take);
        }
    }

    static <V> void readTo(KafkaConsumer<String, V> consumer, Map<TopicPartition, Long> ends,
            Consumer<ConsumerRecord<String, V>> take) {
        // As long as it goes on: what there is to read may be much.
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        while (ends.entrySet().stream().anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) {
            for (ConsumerRecord<String, V> record : consumer.poll(Duration.ofMillis(100))) {
                take.accept(record);
                deadline = System.nanoTime() + PATIENCE.toNanos();
            }
            if (System.nanoTime() > deadline) {
                Map<TopicPartition, Long> positions = ends.keySet().stream()
                    .collect(Collectors.toMap(partition -> partition, consumer::position));
                throw new Broken("reading stands still at " + positions + ", the ends are " + ends);
            }
        }
    }

    static List<ConsumerRecord<String, String>> read(Options options, String topic, String isolation) {
        List<ConsumerRecord<String, String>> records = new ArrayList<>();
        read(options, topic, isolation, records::add);
        return records;
    }

    /** What a future has wrapped. */
    static Throwable cause(Throwable e) {
        return e instanceof ExecutionException && e.getCause() != null ? cause(e.getCause()) : e;
    }

    interface Action {
        void run() throws Exception;
    }

    /** What a call threw, or "nothing". */
    static String thrown(Action call) {
        try {
            call.run();
            return "nothing";
        } catch (Exception e) {
            return cause(e).getClass().getSimpleName();
        }
    }
}
