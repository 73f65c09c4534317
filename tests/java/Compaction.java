import java.io.BufferedWriter;
import java.io.File;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.Future;
import java.util.function.Supplier;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.server.util.KafkaScheduler;
import org.apache.kafka.storage.internals.log.Cleaner;
import org.apache.kafka.storage.internals.log.LogCleanerManager;
import org.apache.kafka.storage.internals.log.LogConfig;
import org.apache.kafka.storage.internals.log.LogDirFailureChannel;
import org.apache.kafka.storage.internals.log.LogToClean;
import org.apache.kafka.storage.internals.log.ProducerStateManagerConfig;
import org.apache.kafka.storage.internals.log.SkimpyOffsetMap;
import org.apache.kafka.storage.internals.log.UnifiedLog;
import org.apache.kafka.storage.internals.utils.Throttler;
import org.apache.kafka.storage.log.metrics.BrokerTopicStats;

/**
 * Fills the logs that .ci/compaction_beside_kafka compacts, and has Kafka's own cleaner compact them.
 *
 * <pre>
 * create HOST:PORT             the topics
 * load HOST:PORT PHASE SCALE   writes the phase's records, SCALE times as many
 * clean DATA OUT DELETE_RETENTION_MS TIME...
 *                              compacts DATA's logs as a cleaner whose clock stands at each TIME; what each time is then left
 *                              goes to OUT/1, OUT/2 and so on: the .log files, and in `cleaned` the part that was dirty
 * </pre>
 */
public final class Compaction {
    private static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    private static final Map<String, String> SMALL = Map.of(
        "internal.segment.bytes", "4000", "index.interval.bytes", "300", "segment.index.bytes", "1200");
    /** In storage/tests/compaction_beside_kafka too. */
    private static final Map<String, String> COMPACTED = Map.of("cleanup.policy", "compact",
        "min.compaction.lag.ms", "86400000", "file.delete.delay.ms", "0");

    private final String bootstrap;
    private final Random random;
    private final int scale;

    private Compaction(String bootstrap, int phase, int scale) {
        this.bootstrap = bootstrap;
        this.random = new Random(phase);
        this.scale = scale;
    }

    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "create" -> new Compaction(args[1], 0, 1).create();
            case "load" -> new Compaction(args[1], Integer.parseInt(args[2]), Integer.parseInt(args[3]))
                .load(Integer.parseInt(args[2]));
            case "clean" -> clean(Path.of(args[1]), Path.of(args[2]), args[3],
                Arrays.stream(args).skip(4).map(Long::parseLong).toList());
            default -> throw new IllegalArgumentException(args[0]);
        }
        // The producer of an open transaction would wait for it.
        System.exit(0);
    }

    /** They are not compacted while they are written, so that records without keys get in, too. */
    private void create() throws Exception {
        List<NewTopic> topics = new ArrayList<>();
        for (String codec : CODECS) topics.add(topic("codec-" + codec, Map.of()));
        topics.add(topic("append-time", Map.of("message.timestamp.type", "LogAppendTime")));
        for (String name : List.of("mixed", "transactions", "undecided")) topics.add(topic(name, Map.of()));
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin.createTopics(topics).all().get();
        }
    }

    private static NewTopic topic(String name, Map<String, String> configs) {
        Map<String, String> all = new HashMap<>(SMALL);
        all.putAll(Map.of("cleanup.policy", "delete", "retention.ms", "-1"));
        all.putAll(configs);
        return new NewTopic(name, Optional.of(1), Optional.empty()).configs(all);
    }

    private void load(int phase) throws Exception {
        for (String codec : CODECS) {
            try (var producer = producer(Map.of("compression.type", codec))) {
                fill(producer, "codec-" + codec, 60 * scale, 6);
            }
        }
        for (String codec : List.of("none", "lz4")) {
            try (var producer = producer(Map.of("compression.type", codec))) {
                fill(producer, "append-time", 30 * scale, 6);
            }
        }
        for (String codec : CODECS) {
            boolean idempotent = random.nextBoolean();
            try (var producer = producer(Map.of("compression.type", codec, "enable.idempotence", idempotent, "acks", "all"))) {
                fill(producer, "mixed", 20 * scale, 5);
            }
        }
        transactions(phase);
        var left = phase == 2 ? transactional("left", "none") : producer(Map.of());
        if (phase == 2) left.beginTransaction();
        for (int times = 0; times < 3; times++) {
            fill(left, "undecided", 2, 2);
            try (var other = producer(Map.of())) {
                fill(other, "undecided", 20 * scale, 4);
            }
        }
    }

    /** Committed and aborted ones, some at the same time, and records outside of them between. */
    private void transactions(int phase) throws Exception {
        for (String codec : List.of("none", "gzip")) {
            // In the third phase the producers go on; else they are others, and the ones before have a last marker.
            String suffix = codec + "-" + Math.min(phase, 2);
            try (var first = transactional("first-" + suffix, codec); var second = transactional("second-" + suffix, codec);
                 var plain = producer(Map.of("compression.type", codec))) {
                for (int times = 0; times < 3 * scale; times++) {
                    first.beginTransaction();
                    second.beginTransaction();
                    fill(first, "transactions", 4, 2);
                    fill(second, "transactions", 3, 3);
                    fill(plain, "transactions", 2, 2);
                    if (times % 3 == 2) first.abortTransaction(); else first.commitTransaction();
                    fill(second, "transactions", 3, 3);
                    if (times % 4 == 3) second.commitTransaction(); else second.abortTransaction();
                }
            }
        }
    }

    /** Sends records of few keys in batches of at most {@code together}. */
    private void fill(KafkaProducer<byte[], byte[]> producer, String topic, int count, int together) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (int index = 0; index < count; index++) {
            // Some keys are written once and never again.
            String name = random.nextInt(15) == 0 ? "once-" + random.nextInt() : "key-" + random.nextInt(12);
            byte[] key = random.nextInt(25) == 0 ? null : name.getBytes(StandardCharsets.UTF_8);
            byte[] value = random.nextInt(5) == 0 ? null : text(random.nextInt(100));
            List<Header> headers = new ArrayList<>();
            for (int header = random.nextInt(4); header > 1; header--) {
                byte[] headerValue = random.nextInt(3) == 0 ? null : text(random.nextInt(9));
                headers.add(new RecordHeader("header-" + random.nextInt(3), headerValue));
            }
            long timestamp = System.currentTimeMillis() - random.nextInt(200);
            sent.add(producer.send(new ProducerRecord<>(topic, 0, timestamp, key, value, headers)));
            if (random.nextInt(together) == 0) producer.flush();
        }
        producer.flush();
        for (var one : sent) one.get();
    }

    private byte[] text(int count) {
        StringBuilder text = new StringBuilder();
        while (text.length() < count) text.append("word-").append(random.nextInt(100)).append(' ');
        return text.toString().getBytes(StandardCharsets.UTF_8);
    }

    private KafkaProducer<byte[], byte[]> transactional(String id, String codec) {
        var producer = producer(Map.of("transactional.id", id, "compression.type", codec));
        producer.initTransactions();
        return producer;
    }

    private KafkaProducer<byte[], byte[]> producer(Map<String, Object> more) {
        Map<String, Object> config = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "linger.ms", 1000,
            "delivery.timeout.ms", 60_000, "request.timeout.ms", 20_000));
        config.putAll(more);
        return new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private static void clean(Path data, Path out, String retention, List<Long> times) throws Exception {
        List<File> partitions = new ArrayList<>();
        for (File folder : data.toFile().listFiles(File::isDirectory)) {
            if (folder.getName().matches("[a-z].*-0")) partitions.add(folder);
        }
        for (int round = 1; round <= times.size(); round++) Files.createDirectories(out.resolve(String.valueOf(round)));
        for (File partition : partitions) {
            String name = partition.getName();
            Optional<Long> checkpoint = Optional.empty();
            for (int round = 1; round <= times.size(); round++) {
                Path left = Files.createDirectories(out.resolve(String.valueOf(round)).resolve(name));
                checkpoint = clean(partition, retention, checkpoint, times.get(round - 1), left);
                for (File file : partition.listFiles()) {
                    if (file.getName().endsWith(".log")) Files.copy(file.toPath(), left.resolve(file.getName()));
                }
            }
        }
    }

    /** One round for one log, if any of it is dirty. Returns the first offset that is dirty then. */
    private static Optional<Long> clean(File partition, String retention, Optional<Long> checkpoint, long now, Path left)
            throws Exception {
        Map<String, String> config = new HashMap<>(SMALL);
        config.putAll(COMPACTED);
        config.put("delete.retention.ms", retention);
        Time time = at(now);
        KafkaScheduler scheduler = new KafkaScheduler(1);
        scheduler.startup();
        UnifiedLog log = UnifiedLog.create(partition, new LogConfig(config), 0, 0, scheduler, new BrokerTopicStats(), time,
            900_000, new ProducerStateManagerConfig(Integer.MAX_VALUE, false), Integer.MAX_VALUE, new LogDirFailureChannel(1),
            true, Optional.empty());
        log.updateHighWatermark(log.logEndOffset());
        // It is private to its package, and the only place where the part to clean is chosen.
        Method cleanable = LogCleanerManager.class.getDeclaredMethod("cleanableOffsets", UnifiedLog.class, Optional.class, long.class);
        cleanable.setAccessible(true);
        Object offsets = cleanable.invoke(null, log, checkpoint, now);
        LogToClean chosen = new LogToClean(log, offset(offsets, "firstDirtyOffset"), offset(offsets, "firstUncleanableDirtyOffset"), false);
        Optional<Long> next = checkpoint;
        try (BufferedWriter cleaned = Files.newBufferedWriter(left.resolve("cleaned"))) {
            if (chosen.cleanableBytes() > 0) {
                Throttler throttler = new Throttler(Double.MAX_VALUE, 300, "throttler", "entries", time);
                Cleaner cleaner = new Cleaner(0, new SkimpyOffsetMap(1 << 20), 65536, 1 << 20, 0.9, throttler, time, ignored -> { });
                next = Optional.of(cleaner.doClean(chosen, now).getKey());
                cleaned.write(chosen.firstDirtyOffset() + " " + next.get() + "\n");
            }
        }
        log.close();
        scheduler.shutdown();
        // What the scheduler had no time for.
        for (File file : partition.listFiles()) {
            if (file.getName().endsWith(".deleted")) Files.delete(file.toPath());
        }
        return next;
    }

    private static long offset(Object offsets, String name) throws Exception {
        Method method = offsets.getClass().getDeclaredMethod(name);
        method.setAccessible(true);
        return (long) method.invoke(offsets);
    }

    /** A clock that stands. */
    private static Time at(long now) {
        return new Time() {
            @Override public long milliseconds() { return now; }
            @Override public long nanoseconds() { return System.nanoTime(); }
            @Override public void sleep(long ms) { }
            @Override public void waitObject(Object object, Supplier<Boolean> condition, long deadline) {
                throw new UnsupportedOperationException();
            }
        };
    }
}
