import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;

/** Reads a topic in a consumer group and prints its records as JSON lines: at least once, until SIGTERM or SIGINT. */
public class Consumer implements ConsumerRebalanceListener {
    private static volatile boolean stopping;
    private static volatile int status = 1;

    private final ObjectMapper json = new ObjectMapper();
    private final PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
    private final KafkaConsumer<String, String> consumer;
    private final Long fromTimestamp;
    private boolean uncommitted;

    public static void main(String[] args) {
        Map<String, String> options = new HashMap<>();
        for (int i = 3; i + 1 < args.length; i += 2) options.put(args[i], args[i + 1]);
        String assignor = options.getOrDefault("--assignor", "range");
        if (args.length < 3 || args.length % 2 == 0 || !List.of("range", "cooperative-sticky").contains(assignor)) {
            System.err.println("usage: consumer BOOTSTRAP TOPIC GROUP [--from-timestamp MS]"
                + " [--assignor range|cooperative-sticky] [--instance-id ID]");
            System.exit(2);
        }
        Properties config = new Properties();
        config.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        config.put(ConsumerConfig.GROUP_ID_CONFIG, args[2]);
        config.put(ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, StringDeserializer.class);
        config.put(ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, StringDeserializer.class);
        config.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        config.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        config.put(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG, 10_000); // A member that dies without leaving is missed then.
        config.put(ConsumerConfig.PARTITION_ASSIGNMENT_STRATEGY_CONFIG,
            assignor.equals("range") ? RangeAssignor.class.getName() : CooperativeStickyAssignor.class.getName());
        if (options.containsKey("--instance-id")) {
            config.put(ConsumerConfig.GROUP_INSTANCE_ID_CONFIG, options.get("--instance-id"));
        }

        // A signal lets the loop finish its round; the exit waits for the consumer to have left the group.
        Thread loop = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            stopping = true;
            try {
                loop.join();
            } catch (InterruptedException e) {
                // Exit with what is known.
            }
            Runtime.getRuntime().halt(status);
        }));
        String fromTimestamp = options.get("--from-timestamp");
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config)) {
            new Consumer(consumer, fromTimestamp == null ? null : Long.valueOf(fromTimestamp)).run(args[1]);
        }
        status = 0;
    }

    private Consumer(KafkaConsumer<String, String> consumer, Long fromTimestamp) {
        this.consumer = consumer;
        this.fromTimestamp = fromTimestamp;
    }

    private void run(String topic) {
        consumer.subscribe(List.of(topic), this);
        while (!stopping) {
            ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(200));
            if (records.isEmpty()) continue;
            for (ConsumerRecord<String, String> record : records) print(record);
            out.flush();
            uncommitted = true;
            commit();
        }
    }

    /** Commits the positions after the records that are printed. */
    private void commit() {
        if (!uncommitted) return;
        try {
            consumer.commitSync();
            uncommitted = false;
        } catch (RebalanceInProgressException e) {
            // The next poll takes part in the rebalance; a commit is possible in onPartitionsRevoked, or after it.
        } catch (CommitFailedException e) {
            // The group went on without this member: another one reads from the last commit.
            uncommitted = false;
        }
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        event("assigned", partitions);
        if (fromTimestamp == null) return;
        Map<TopicPartition, Long> times = new HashMap<>();
        for (TopicPartition partition : partitions) times.put(partition, fromTimestamp);
        consumer.offsetsForTimes(times).forEach((partition, found) -> {
            if (found == null) {
                consumer.seekToEnd(List.of(partition));
            } else {
                consumer.seek(partition, found.offset());
            }
        });
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        commit();
        event("revoked", partitions);
    }

    @Override
    public void onPartitionsLost(Collection<TopicPartition> partitions) {
        event("revoked", partitions);
    }

    private void event(String name, Collection<TopicPartition> partitions) {
        ObjectNode line = json.createObjectNode().put("event", name);
        ArrayNode numbers = line.putArray("partitions");
        partitions.forEach(partition -> numbers.add(partition.partition()));
        out.println(line);
        out.flush();
    }

    private void print(ConsumerRecord<String, String> record) {
        ObjectNode line = json.createObjectNode()
            .put("partition", record.partition())
            .put("offset", record.offset())
            .put("timestamp", record.timestamp())
            .put("key", record.key())
            .put("value", record.value());
        ObjectNode headers = line.putObject("headers");
        for (Header header : record.headers()) {
            byte[] value = header.value();
            headers.put(header.key(), value == null ? null : new String(value, StandardCharsets.UTF_8));
        }
        out.println(line);
    }
}
