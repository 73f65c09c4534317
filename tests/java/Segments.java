import java.io.BufferedWriter;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListTopicsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.ProducerState;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.message.OffsetForLeaderEpochRequestData.OffsetForLeaderPartition;
import org.apache.kafka.common.message.OffsetForLeaderEpochRequestData.OffsetForLeaderTopic;
import org.apache.kafka.common.message.OffsetForLeaderEpochRequestData.OffsetForLeaderTopicCollection;
import org.apache.kafka.common.message.OffsetForLeaderEpochResponseData.EpochEndOffset;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.requests.AbstractResponse;
import org.apache.kafka.common.requests.OffsetsForLeaderEpochRequest;
import org.apache.kafka.common.requests.OffsetsForLeaderEpochResponse;
import org.apache.kafka.common.requests.RequestHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Fills the topics whose segments .ci/kafka_segments takes from a Kafka, and says what a client finds in any broker.
 *
 * <pre>
 * create HOST:PORT             the topics
 * load HOST:PORT ROUND SCALE   writes the round's records, SCALE times as many
 * plain HOST:PORT ROUND SCALE  as load, without transactions
 * open HOST:PORT               leaves a transaction open, and does not wait for its end
 * say HOST:PORT FILE           what is in every partition: one line per record, timestamp, epoch and producer
 * </pre>
 */
public final class Segments {
    private static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    private static final Map<String, String> SMALL = Map.of(
        "internal.segment.bytes", "4000", "index.interval.bytes", "300", "segment.index.bytes", "1200");
    private static final HexFormat HEX = HexFormat.of();

    private final String bootstrap;
    private final Random random;
    private final int scale;

    private Segments(String bootstrap, int round, int scale) {
        this.bootstrap = bootstrap;
        this.random = new Random(round);
        this.scale = scale;
    }

    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "create" -> new Segments(args[1], 0, 1).create();
            case "load", "plain" -> new Segments(args[1], Integer.parseInt(args[2]), Integer.parseInt(args[3]))
                .load(Integer.parseInt(args[2]), args[0].equals("load"));
            case "open" -> new Segments(args[1], 99, 1).leaveOpen();
            case "say" -> new Segments(args[1], 0, 1).say(Path.of(args[2]));
            default -> throw new IllegalArgumentException(args[0]);
        }
        // The producer of an open transaction would wait for it.
        System.exit(0);
    }

    private void load(int round, boolean transactions) throws Exception {
        for (String codec : CODECS) codec(codec, round);
        appendTime();
        recompressed();
        withoutIdempotence(round);
        if (transactions) transactions();
        compacted();
        try (Admin admin = admin()) {
            TopicPartition deleted = new TopicPartition("deleted", 0);
            try (var producer = producer(Map.of("compression.type", "lz4"))) {
                fill(producer, "deleted", 30 * scale, 4);
            }
            // Into the middle of a batch, or of a segment.
            admin.deleteRecords(Map.of(deleted, RecordsToDelete.beforeOffset(20L * scale * round + 3))).all().get();
        }
    }

    private void create() throws Exception {
        List<NewTopic> topics = new ArrayList<>();
        for (String codec : CODECS) topics.add(topic("codec-" + codec, Map.of()));
        topics.add(topic("append-time", Map.of("message.timestamp.type", "LogAppendTime")));
        topics.add(topic("recompressed", Map.of("compression.type", "gzip")));
        topics.add(topic("no-producer-ids", Map.of()));
        topics.add(topic("transactions", Map.of()));
        topics.add(topic("deleted", Map.of()));
        topics.add(topic("compacted", Map.of("cleanup.policy", "compact", "min.cleanable.dirty.ratio", "0.01",
            "max.compaction.lag.ms", "1000", "delete.retention.ms", "600000")));
        topics.add(topic("empty", Map.of()));
        try (Admin admin = admin()) {
            admin.createTopics(topics).all().get();
        }
    }

    private static NewTopic topic(String name, Map<String, String> configs) {
        Map<String, String> all = new HashMap<>(SMALL);
        all.putAll(configs);
        return new NewTopic(name, Optional.of(1), Optional.empty()).configs(all);
    }

    /** Batches of one to many records, and timestamps that go up and down. */
    private void codec(String codec, int round) throws Exception {
        try (var producer = producer(Map.of("compression.type", codec));
             var other = producer(Map.of("compression.type", codec))) {
            fill(producer, "codec-" + codec, 25 * scale, 6);
            // In the third round only the first of both, so that one epoch has one batch, and some have none.
            if (round != 3) fill(other, "codec-" + codec, 15 * scale, 1);
        }
    }

    private void appendTime() throws Exception {
        for (String codec : List.of("none", "zstd")) {
            try (var producer = producer(Map.of("compression.type", codec))) {
                fill(producer, "append-time", 15 * scale, 4);
            }
        }
    }

    private void recompressed() throws Exception {
        for (String codec : CODECS) {
            try (var producer = producer(Map.of("compression.type", codec))) {
                fill(producer, "recompressed", 6 * scale, 3);
            }
        }
    }

    private void withoutIdempotence(int round) throws Exception {
        if (round == 2) return;
        try (var producer = producer(Map.of("enable.idempotence", false, "acks", "1", "compression.type", "snappy"))) {
            fill(producer, "no-producer-ids", 30 * scale, 5);
        }
    }

    /** Committed and aborted ones, some at the same time, and one producer that is fenced by its successor. */
    private void transactions() throws Exception {
        for (String codec : List.of("none", "lz4", "gzip")) {
            try (var first = transactional("first-" + codec, codec); var second = transactional("second-" + codec, codec)) {
                for (int times = 0; times < 2 * scale; times++) {
                    first.beginTransaction();
                    second.beginTransaction();
                    fill(first, "transactions", 4, 2);
                    fill(second, "transactions", 3, 3);
                    first.commitTransaction();
                    fill(second, "transactions", 3, 3);
                    second.abortTransaction();
                }
            }
        }
        try (var fenced = transactional("fenced", "none")) {
            fenced.beginTransaction();
            fill(fenced, "transactions", 3, 1);
            try (var successor = transactional("fenced", "none")) {
                successor.beginTransaction();
                fill(successor, "transactions", 2, 1);
                successor.commitTransaction();
            }
        }
        try (var producer = producer(Map.of("compression.type", "zstd"))) {
            fill(producer, "transactions", 5, 2);
        }
    }

    private void leaveOpen() throws Exception {
        var producer = transactional("open", "none");
        producer.beginTransaction();
        fill(producer, "transactions", 3, 3);
        try (var plain = producer(Map.of())) {
            fill(plain, "transactions", 2, 1);
        }
    }

    /** Few keys, so that the cleaner leaves gaps and batches without records. */
    private void compacted() throws Exception {
        try (var producer = producer(Map.of("compression.type", "gzip")); var other = producer(Map.of())) {
            for (int index = 0; index < 60 * scale; index++) {
                byte[] key = ("key-" + random.nextInt(8)).getBytes(StandardCharsets.UTF_8);
                byte[] value = random.nextInt(6) == 0 ? null : bytes(120);
                var record = new ProducerRecord<>("compacted", 0, System.currentTimeMillis(), key, value);
                var sender = index % 10 == 0 ? other : producer;
                sender.send(record);
                if (index % 3 == 0) sender.flush();
            }
        }
    }

    /** Sends records in batches of at most {@code together}. */
    private void fill(KafkaProducer<byte[], byte[]> producer, String topic, int count, int together) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (int index = 0; index < count; index++) {
            long timestamp = System.currentTimeMillis() - random.nextInt(60_000);
            byte[] key = random.nextInt(4) == 0 ? null : bytes(random.nextInt(12));
            byte[] value = random.nextInt(8) == 0 ? null : text(random.nextInt(160));
            List<Header> headers = new ArrayList<>();
            for (int header = random.nextInt(4); header > 1; header--) {
                headers.add(new RecordHeader("header-" + random.nextInt(3), random.nextInt(3) == 0 ? null : bytes(random.nextInt(9))));
            }
            sent.add(producer.send(new ProducerRecord<>(topic, 0, timestamp, key, value, headers)));
            if (random.nextInt(together) == 0) {
                producer.flush();
            }
        }
        producer.flush();
        for (var one : sent) one.get();
    }

    private byte[] bytes(int count) {
        byte[] bytes = new byte[count];
        random.nextBytes(bytes);
        return bytes;
    }

    /** What a codec can do something about. */
    private byte[] text(int count) {
        StringBuilder text = new StringBuilder();
        while (text.length() < count) text.append("word-").append(random.nextInt(5)).append(' ');
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

    private Admin admin() {
        return Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    private void say(Path file) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "isolation.level", "read_uncommitted",
            "enable.auto.commit", false, "auto.offset.reset", "earliest");
        try (Admin admin = admin();
             var consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
             BufferedWriter out = Files.newBufferedWriter(file)) {
            var names = admin.listTopics(new ListTopicsOptions().listInternal(true)).names().get();
            for (TopicDescription topic : new TreeMap<>(admin.describeTopics(names).allTopicNames().get()).values()) {
                for (var partition : topic.partitions()) {
                    say(admin, consumer, new TopicPartition(topic.name(), partition.partition()), topic.topicId().toString(), out);
                }
            }
        }
    }

    private void say(Admin admin, KafkaConsumer<byte[], byte[]> consumer, TopicPartition partition, String topicId,
            BufferedWriter out) throws Exception {
        long start = list(admin, partition, OffsetSpec.earliest()).offset();
        long end = list(admin, partition, OffsetSpec.latest()).offset();
        line(out, "partition", partition.topic(), partition.partition(), topicId, start, end);
        TreeSet<Long> times = new TreeSet<>();
        consumer.assign(List.of(partition));
        consumer.seek(partition, start);
        while (consumer.position(partition) < end) {
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(500)).records(partition)) {
                if (record.offset() >= end) continue;
                List<Object> headers = new ArrayList<>();
                for (Header header : record.headers()) {
                    headers.add(hex(header.key().getBytes(StandardCharsets.UTF_8)) + "=" + hex(header.value()));
                }
                line(out, "record", record.offset(), record.timestamp(), record.timestampType(), record.leaderEpoch().orElse(-1),
                    hex(record.key()), hex(record.value()), headers.isEmpty() ? "-" : String.join(",", strings(headers)));
                times.add(record.timestamp());
            }
        }
        List<Long> asked = new ArrayList<>(times);
        Collections.shuffle(asked, new Random(1));
        TreeSet<Long> around = new TreeSet<>(List.of(0L));
        for (long time : asked.subList(0, Math.min(asked.size(), 20))) around.addAll(List.of(time - 1, time, time + 1));
        if (!times.isEmpty()) around.addAll(List.of(times.first() - 1, times.last(), times.last() + 1));
        for (long time : around) {
            var found = list(admin, partition, OffsetSpec.forTimestamp(time));
            line(out, "time", time, found.offset(), found.timestamp(), found.leaderEpoch().orElse(-1));
        }
        var latest = list(admin, partition, OffsetSpec.maxTimestamp());
        line(out, "max", latest.offset(), latest.timestamp(), latest.leaderEpoch().orElse(-1));
        for (EpochEndOffset epoch : epochs(partition)) line(out, "epoch", epoch.partition(), epoch.leaderEpoch(), epoch.endOffset());
        try {
            var producers = admin.describeProducers(List.of(partition)).partitionResult(partition).get().activeProducers();
            for (ProducerState one : producers) {
                line(out, "producer", one.producerId(), one.producerEpoch(), one.lastSequence(), one.lastTimestamp(),
                    one.coordinatorEpoch().orElse(-1), one.currentTransactionStartOffset().orElse(-1));
            }
        } catch (ExecutionException e) {
            line(out, "producers", e.getCause());
        }
    }

    private static org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo list(
            Admin admin, TopicPartition partition, OffsetSpec spec) throws Exception {
        return admin.listOffsets(Map.of(partition, spec)).partitionResult(partition).get();
    }

    /** The end of every epoch up to the present one and the next; each answer's partition is the epoch asked for. */
    private List<EpochEndOffset> epochs(TopicPartition partition) throws Exception {
        List<EpochEndOffset> ends = new ArrayList<>();
        String[] address = bootstrap.split(":");
        try (Socket socket = new Socket(address[0], Integer.parseInt(address[1]))) {
            for (int epoch = 0; epoch < 8; epoch++) {
                var topics = new OffsetForLeaderTopicCollection();
                topics.add(new OffsetForLeaderTopic().setTopic(partition.topic()).setPartitions(List.of(
                    new OffsetForLeaderPartition().setPartition(partition.partition()).setLeaderEpoch(epoch).setCurrentLeaderEpoch(-1))));
                short version = 4;
                var header = new RequestHeader(ApiKeys.OFFSET_FOR_LEADER_EPOCH, version, "segments", epoch);
                ByteBuffer request = OffsetsForLeaderEpochRequest.Builder.forConsumer(topics).build(version).serializeWithHeader(header);
                var out = new DataOutputStream(socket.getOutputStream());
                out.writeInt(request.remaining());
                out.write(request.array(), request.arrayOffset() + request.position(), request.remaining());
                out.flush();
                var in = new DataInputStream(socket.getInputStream());
                byte[] response = in.readNBytes(in.readInt());
                var answer = (OffsetsForLeaderEpochResponse) AbstractResponse.parseResponse(ByteBuffer.wrap(response), header);
                ends.add(answer.data().topics().iterator().next().partitions().get(0).setPartition(epoch));
            }
        }
        return ends;
    }

    private static List<String> strings(List<Object> values) {
        return values.stream().map(String::valueOf).toList();
    }

    private static String hex(byte[] bytes) {
        return bytes == null ? "null" : "x" + HEX.formatHex(bytes);
    }

    private static void line(BufferedWriter out, Object... words) throws Exception {
        out.write(String.join(" ", strings(Arrays.asList(words))));
        out.newLine();
    }
}
