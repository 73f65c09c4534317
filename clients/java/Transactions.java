import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Writes in transactions, which are read as a whole or not at all, and prints how each ended.
 *
 * <p>{@code write} makes a transaction of each line of stdin, such as {"records": [{"value": "a"}], "commit": true}.
 * {@code copy} reads a topic in a consumer group and writes each value, in upper case, to another one. The copies and the
 * position behind what was read are one transaction, so each record is copied exactly once, whatever becomes of this
 * process. A transactional id belongs to one producer at a time: a new one of the same id ends what the one before
 * has left open, and shuts it out.
 */
public class Transactions {
    private static volatile boolean stopping;
    private static volatile int status = 1;

    public static void main(String[] args) throws Exception {
        boolean writes = args.length == 4 && args[0].equals("write");
        boolean copies = (args.length == 6 || args.length == 8 && args[6].equals("--abort-every")) && args[0].equals("copy");
        if (!writes && !copies) {
            System.err.println("usage: transactions write BOOTSTRAP TOPIC ID");
            System.err.println("       transactions copy BOOTSTRAP TOPIC OUTPUT GROUP ID [--abort-every N]");
            System.exit(2);
        }
        Properties config = new Properties();
        config.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, args[1]);
        config.put(ProducerConfig.KEY_SERIALIZER_CLASS_CONFIG, StringSerializer.class);
        config.put(ProducerConfig.VALUE_SERIALIZER_CLASS_CONFIG, StringSerializer.class);
        config.put(ProducerConfig.TRANSACTIONAL_ID_CONFIG, args[writes ? 3 : 5]);
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(config)) {
            producer.initTransactions();
            if (writes) {
                write(producer, args[2]);
            } else {
                copy(producer, args[1], args[2], args[3], args[4], args.length == 8 ? Integer.parseInt(args[7]) : 0);
            }
        }
        status = 0;
    }

    private static void write(KafkaProducer<String, String> producer, String topic) throws Exception {
        ObjectMapper json = new ObjectMapper();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = lines.readLine()) != null; ) {
            if (line.isBlank()) continue;
            JsonNode transaction = json.readTree(line);
            producer.beginTransaction();
            for (JsonNode record : transaction.get("records")) {
                Integer partition = record.hasNonNull("partition") ? record.get("partition").intValue() : null;
                producer.send(new ProducerRecord<>(topic, partition, text(record.get("key")), text(record.get("value"))));
            }
            producer.flush();
            if (transaction.get("commit").booleanValue()) {
                commit(producer);
            } else {
                abort(producer);
            }
        }
    }

    private static String text(JsonNode value) {
        return value == null || value.isNull() ? null : value.asText();
    }

    private static void commit(KafkaProducer<String, String> producer) {
        producer.commitTransaction();
        System.out.println("{\"transaction\":\"committed\"}");
    }

    private static void abort(KafkaProducer<String, String> producer) {
        producer.abortTransaction();
        System.out.println("{\"transaction\":\"aborted\"}");
    }

    private static void copy(KafkaProducer<String, String> producer, String bootstrap, String topic, String output,
            String group, int abortEvery) {
        Properties config = new Properties();
        config.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        config.put(ConsumerConfig.GROUP_ID_CONFIG, group);
        config.put(ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, StringDeserializer.class);
        config.put(ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, StringDeserializer.class);
        config.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        config.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false); // Positions are committed in the transactions.
        config.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed");
        config.put(ConsumerConfig.MAX_POLL_RECORDS_CONFIG, 10);
        config.put(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG, 6_000); // A member that dies without leaving is missed then.
        config.put(ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG, 2_000);

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
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config)) {
            consumer.subscribe(List.of(topic));
            for (int count = 1; !stopping; ) {
                ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(200));
                if (records.isEmpty()) continue;
                producer.beginTransaction();
                Map<TopicPartition, OffsetAndMetadata> positions = new HashMap<>();
                for (ConsumerRecord<String, String> record : records) {
                    String copy = record.value().toUpperCase(Locale.ROOT);
                    producer.send(new ProducerRecord<>(output, record.key(), copy));
                    positions.put(new TopicPartition(topic, record.partition()), new OffsetAndMetadata(record.offset() + 1));
                }
                producer.flush();
                boolean aborts = abortEvery > 0 && count++ % abortEvery == 0;
                try {
                    // With its own metadata a member that the group has gone on without can commit nothing.
                    producer.sendOffsetsToTransaction(positions, consumer.groupMetadata());
                } catch (CommitFailedException e) {
                    aborts = true;
                }
                if (aborts) {
                    abort(producer);
                    rewind(consumer);
                } else {
                    commit(producer);
                }
            }
        }
    }

    /** Back to the last committed positions. */
    private static void rewind(KafkaConsumer<String, String> consumer) {
        Map<TopicPartition, OffsetAndMetadata> committed = consumer.committed(consumer.assignment());
        for (TopicPartition partition : consumer.assignment()) {
            OffsetAndMetadata position = committed.get(partition);
            if (position == null) {
                consumer.seekToBeginning(List.of(partition));
            } else {
                consumer.seek(partition, position);
            }
        }
    }
}
