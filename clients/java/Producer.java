import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Sends one record per line of stdin, such as {"key": "c-1", "value": "..."}, and prints where each is once it is
 * acknowledged. Optional in a line: key, headers, timestamp (ms), partition.
 */
public class Producer {
    public static void main(String[] args) throws Exception {
        if (args.length != 2 && !(args.length == 4 && args[2].equals("--compression"))) {
            System.err.println("usage: producer BOOTSTRAP TOPIC [--compression none|gzip|snappy|lz4|zstd]");
            System.exit(2);
        }
        Properties config = new Properties();
        config.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        config.put(ProducerConfig.KEY_SERIALIZER_CLASS_CONFIG, StringSerializer.class);
        config.put(ProducerConfig.VALUE_SERIALIZER_CLASS_CONFIG, StringSerializer.class);
        config.put(ProducerConfig.COMPRESSION_TYPE_CONFIG, args.length == 4 ? args[3] : "none");
        // Both are the defaults: acknowledged is durable, and a retry neither doubles nor reorders records.
        config.put(ProducerConfig.ACKS_CONFIG, "all");
        config.put(ProducerConfig.ENABLE_IDEMPOTENCE_CONFIG, true);

        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        AtomicBoolean failed = new AtomicBoolean();
        // Closing the producer waits for everything that was sent.
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(config)) {
            ObjectMapper json = new ObjectMapper();
            BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
            for (String line; (line = lines.readLine()) != null; ) {
                if (line.isBlank()) continue;
                producer.send(record(args[1], json.readTree(line)), (written, error) -> {
                    if (error == null) {
                        out.printf("{\"partition\":%d,\"offset\":%d}%n", written.partition(), written.offset());
                    } else {
                        System.err.println("not written: " + error);
                        failed.set(true);
                    }
                });
            }
        }
        System.exit(failed.get() ? 1 : 0);
    }

    private static ProducerRecord<String, String> record(String topic, JsonNode line) {
        Integer partition = line.hasNonNull("partition") ? line.get("partition").intValue() : null;
        Long timestamp = line.hasNonNull("timestamp") ? line.get("timestamp").longValue() : null;
        ProducerRecord<String, String> record =
            new ProducerRecord<>(topic, partition, timestamp, text(line.get("key")), text(line.get("value")));
        for (Map.Entry<String, JsonNode> header : line.path("headers").properties()) {
            String value = text(header.getValue());
            record.headers().add(header.getKey(), value == null ? null : value.getBytes(StandardCharsets.UTF_8));
        }
        return record;
    }

    private static String text(JsonNode value) {
        return value == null || value.isNull() ? null : value.asText();
    }
}
