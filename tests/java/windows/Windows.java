import java.io.IOException;
import java.io.PrintWriter;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.stream.Stream;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.common.utils.AppInfoParser;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.TestInputTopic;
import org.apache.kafka.streams.TopologyTestDriver;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.KGroupedStream;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.SessionWindows;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.state.SessionStore;
import org.apache.kafka.streams.state.WindowStore;

/**
 * What Kafka Streams emits for each record of a stream, in tumbling, hopping and session windows.
 *
 * <pre>
 * Windows make FOLDER SEED RECORDS             the streams of {@link Streams}, and what is expected of them
 * Windows run STREAM EXPECTED WINDOW...        what is expected of that stream in these windows
 * Windows run-in-memory STREAM EXPECTED WINDOW...   the same with Kafka's in-memory stores, not RocksDB
 * </pre>
 *
 * <p>Files and windows are described in inference/tests/windows_beside_kafka_streams/README.md. Each window has a task of its
 * own with one partition. Nothing is cached or suppressed, so that each record's updates are emitted with it.
 *
 * <p>What decides, as read in Kafka 4.3's KStreamWindowAggregate, KStreamSessionWindowAggregate and
 * AbstractRocksDBSegmentedBytesStore, with T the highest time among the records with a key that the processor has seen, this one
 * included, and T' the same without this one:
 *
 * <ul>
 *   <li>Tumbling and hopping: a record at t is in every window [s, s + size) with s a multiple of the advance, s >= 0 and
 *       s <= t < s + size. A window takes it while s + size > T - grace, so it is closed from T = s + size + grace on. Each closed
 *       one is one more in dropped-records. Retention (size + grace, or longer) hides no window that is open.
 *   <li>Session: what is joined are the key's sessions [a, b] with b >= t - gap, a <= t + gap, and b > T' - retention, which is
 *       gap + grace unless set. If the union of [t, t] and these then ends at e < T - grace - gap, the record is dropped and they
 *       stay as they were; else they become one. So a record that is late by itself counts where it joins an open session, and at
 *       e = T - grace - gap it counts still, but the store hides what it made from then on (the in-memory one does not keep it, and
 *       counts it in dropped-records, though its update is emitted). With a longer retention closed sessions are joined too, and
 *       live on if the union is not late.
 *   <li>A null key is dropped and moves no time. A null value is given to the aggregator like any other: it opens windows, joins
 *       and prolongs sessions and moves the time.
 * </ul>
 */
public final class Windows {
    private static final String INPUT = "input";

    /** One window's definition, as on the command line: a kind and its times in ms. */
    record Window(String text, String kind, Map<String, Long> times) {
        static Window parse(String text) {
            String[] kindAndTimes = text.split(":", 2);
            Map<String, Long> times = new HashMap<>();
            for (String time : kindAndTimes[1].split(",")) {
                String[] nameAndValue = time.split("=", 2);
                times.put(nameAndValue[0], Long.parseLong(nameAndValue[1]));
            }
            return new Window(text, kindAndTimes[0], times);
        }

        boolean session() {
            return kind.equals("session");
        }

        long ms(String name) {
            Long ms = times.get(name);
            if (ms == null) throw new IllegalArgumentException(text + " is without " + name);
            return ms;
        }

        Duration time(String name) {
            return Duration.ofMillis(ms(name));
        }
    }

    /** A null key or value is one that is absent from the line. */
    record Input(String key, long timestamp_ms, Double value) {
        static Input parse(String line) {
            String[] fields = line.split("\t", -1);
            return new Input(fields[0].isEmpty() ? null : fields[0], Long.parseLong(fields[1]),
                fields[2].isEmpty() ? null : Double.valueOf(fields[2]));
        }

        String line() {
            return (key == null ? "" : key) + "\t" + timestamp_ms + "\t" + (value == null ? "" : number(value));
        }
    }

    /** All of a window's records, and those with a value. */
    record Aggregate(long records, long count, double sum, double min, double max) {
        static final Aggregate NONE = new Aggregate(0, 0, 0, Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY);

        Aggregate with(Double value) {
            return merge(value == null ? new Aggregate(1, 0, 0, NONE.min, NONE.max) : new Aggregate(1, 1, value, value, value));
        }

        Aggregate merge(Aggregate other) {
            return new Aggregate(records + other.records, count + other.count, sum + other.sum,
                Math.min(min, other.min), Math.max(max, other.max));
        }

        byte[] encode() {
            return ByteBuffer.allocate(40).putLong(records).putLong(count).putDouble(sum).putDouble(min).putDouble(max).array();
        }

        static Aggregate decode(byte[] bytes) {
            ByteBuffer buffer = ByteBuffer.wrap(bytes);
            return new Aggregate(buffer.getLong(), buffer.getLong(), buffer.getDouble(), buffer.getDouble(), buffer.getDouble());
        }

        String text() {
            String values = count == 0 ? "0,," : number(sum) + "," + number(min) + "," + number(max);
            return records + "," + count + "," + values;
        }
    }

    private static final Serde<Aggregate> AGGREGATE = Serdes.serdeFrom(
        (topic, aggregate) -> aggregate == null ? null : aggregate.encode(),
        (topic, bytes) -> bytes == null ? null : Aggregate.decode(bytes));
    private static final Serde<Double> VALUE = Serdes.Double();

    public static void main(String[] args) throws IOException {
        switch (args[0]) {
            case "make" -> {
                Path folder = Files.createDirectories(Path.of(args[1]));
                for (Streams.Kind kind : Streams.KINDS) {
                    Path stream = folder.resolve(kind.name() + ".stream.tsv");
                    List<Input> inputs = new Streams(kind, Long.parseLong(args[2])).records(Integer.parseInt(args[3]));
                    Files.write(stream, inputs.stream().map(Input::line).toList());
                    expect(stream, folder.resolve(kind.name() + ".expected.tsv"), kind.windows(), false);
                }
            }
            case "run", "run-in-memory" -> {
                List<Window> windows = Arrays.stream(args).skip(3).map(Window::parse).toList();
                expect(Path.of(args[1]), Path.of(args[2]), windows, args[0].equals("run-in-memory"));
            }
            default -> throw new IllegalArgumentException("no such command: " + args[0]);
        }
    }

    private static void expect(Path stream, Path expected, List<Window> windows, boolean inMemory) throws IOException {
        List<Input> inputs = Files.readAllLines(stream).stream().map(Input::parse).toList();
        StringBuilder[] lines = new StringBuilder[inputs.size() + 2];
        Arrays.setAll(lines, line -> new StringBuilder());
        lines[0].append("#windows");
        lines[lines.length - 1].append("#dropped");
        for (Window window : windows) {
            lines[0].append('\t').append(window.text());
            long dropped = 0;
            List<Emitted> all = aggregate(inputs, window, inMemory);
            for (int i = 0; i < all.size(); i++) {
                lines[i + 1].append(window == windows.get(0) ? "" : "\t").append(all.get(i).text());
                dropped += all.get(i).dropped();
            }
            lines[lines.length - 1].append('\t').append(dropped);
        }
        try (PrintWriter writer = new PrintWriter(Files.newBufferedWriter(expected))) {
            writer.print("#kafka-streams\t" + AppInfoParser.getVersion() + "\n");
            for (StringBuilder line : lines) writer.print(line.append('\n'));
            if (writer.checkError()) throw new IOException(expected + " could not be written");
        }
    }

    /** What one record led to: updates, and by how much dropped-records rose. */
    private record Emitted(List<String> updates, long dropped) {
        String text() {
            return String.join(" ", updates) + (dropped == 0 ? "" : (updates.isEmpty() ? "!" : " !") + dropped);
        }
    }

    private static List<Emitted> aggregate(List<Input> inputs, Window window, boolean inMemory) throws IOException {
        StreamsBuilder builder = new StreamsBuilder();
        List<Map.Entry<Windowed<String>, Aggregate>> emitted = new ArrayList<>();
        // Those of sessions that have been merged are null.
        KGroupedStream<String, Double> grouped = builder.stream(INPUT, Consumed.with(Serdes.String(), VALUE)).groupByKey();
        table(grouped, window).toStream().foreach((key, aggregate) -> {
            if (aggregate != null) emitted.add(Map.entry(key, aggregate));
        });

        Path state = Files.createTempDirectory("windows-");
        Properties properties = new Properties();
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, "windows");
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, "none:1");
        properties.put(StreamsConfig.STATE_DIR_CONFIG, state.toString());
        properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        if (inMemory) {
            properties.put(StreamsConfig.DSL_STORE_SUPPLIERS_CLASS_CONFIG,
                "org.apache.kafka.streams.state.BuiltInDslStoreSuppliers$InMemoryDslStoreSuppliers");
        }
        List<Emitted> all = new ArrayList<>();
        try (TopologyTestDriver driver = new TopologyTestDriver(builder.build(), properties)) {
            TestInputTopic<String, Double> topic = driver.createInputTopic(INPUT, new StringSerializer(), VALUE.serializer());
            long dropped = dropped(driver);
            for (Input input : inputs) {
                topic.pipeInput(input.key(), input.value(), input.timestamp_ms());
                List<String> updates = new ArrayList<>();
                for (Map.Entry<Windowed<String>, Aggregate> update : emitted) {
                    Windowed<String> key = update.getKey();
                    if (!key.key().equals(input.key())) throw new IllegalStateException(key + " changes with " + input.key());
                    long start = key.window().start() - input.timestamp_ms();
                    long end = key.window().end() - input.timestamp_ms();
                    updates.add(start + "," + end + "," + update.getValue().text());
                }
                emitted.clear();
                long before = dropped;
                dropped = dropped(driver);
                all.add(new Emitted(updates, dropped - before));
            }
        } finally {
            if (Files.exists(state)) {
                try (Stream<Path> paths = Files.walk(state)) {
                    for (Path path : paths.sorted(Comparator.reverseOrder()).toList()) Files.delete(path);
                }
            }
        }
        return all;
    }

    private static KTable<Windowed<String>, Aggregate> table(KGroupedStream<String, Double> grouped, Window window) {
        if (window.session()) {
            Materialized<String, Aggregate, SessionStore<Bytes, byte[]>> store = Materialized.with(Serdes.String(), AGGREGATE);
            store.withCachingDisabled();
            if (window.times().containsKey("retention")) store.withRetention(window.time("retention"));
            return grouped.windowedBy(SessionWindows.ofInactivityGapAndGrace(window.time("gap"), window.time("grace")))
                .aggregate(() -> Aggregate.NONE, (key, value, aggregate) -> aggregate.with(value),
                    (key, one, two) -> one.merge(two), store);
        }
        Materialized<String, Aggregate, WindowStore<Bytes, byte[]>> store = Materialized.with(Serdes.String(), AGGREGATE);
        store.withCachingDisabled();
        TimeWindows windows = TimeWindows.ofSizeAndGrace(window.time("size"), window.time("grace"));
        switch (window.kind()) {
            case "tumbling" -> { }
            case "hopping" -> windows = windows.advanceBy(window.time("advance"));
            default -> throw new IllegalArgumentException("no such window: " + window.text());
        }
        return grouped.windowedBy(windows).aggregate(() -> Aggregate.NONE, (key, value, aggregate) -> aggregate.with(value), store);
    }

    private static long dropped(TopologyTestDriver driver) {
        return driver.metrics().entrySet().stream()
            .filter(metric -> metric.getKey().name().equals("dropped-records-total"))
            .mapToLong(metric -> ((Number) metric.getValue().metricValue()).longValue())
            .sum();
    }

    static String number(double number) {
        return number == Math.rint(number) && Math.abs(number) < 1e15 ? Long.toString((long) number) : Double.toString(number);
    }
}
