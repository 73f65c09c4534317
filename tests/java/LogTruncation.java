import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.LogTruncationException;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * What consumers do with a log that was cut off below their position, or is damaged.
 *
 * <p>Reads commands from its input, a line each, and prints what came of each, a line each:
 * {@code join NAME RESET RECORDS} has a consumer of that name read so many records; {@code go NAME} has it go on;
 * {@code seek NAME OFFSET} has it go on from an offset.
 */
final class LogTruncation {
    private static final Duration PATIENCE = Duration.ofSeconds(30);

    public static void main(String[] args) throws Exception {
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
        TopicPartition partition = new TopicPartition(args[1], 0);
        Map<String, KafkaConsumer<byte[], byte[]>> consumers = new HashMap<>();
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            String[] words = line.split(" ");
            if (words[0].equals("join")) consumers.put(words[1], consumer(args[0], words[2]));
            KafkaConsumer<byte[], byte[]> consumer = consumers.get(words[1]);
            System.out.println(switch (words[0]) {
                case "join" -> {
                    consumer.assign(List.of(partition));
                    consumer.seekToBeginning(List.of(partition));
                    yield read(consumer, partition, Long.parseLong(words[3]));
                }
                case "go" -> next(consumer);
                case "seek" -> {
                    consumer.seek(partition, Long.parseLong(words[2]));
                    yield next(consumer);
                }
                default -> throw new IllegalArgumentException(line);
            });
        }
        consumers.values().forEach(consumer -> consumer.close(CloseOptions.timeout(Duration.ZERO)));
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String bootstrap, String reset) {
        Properties config = new Properties();
        config.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        config.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, reset);
        config.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        config.put(ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class);
        config.put(ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class);
        return new KafkaConsumer<>(config);
    }

    private static String read(KafkaConsumer<?, ?> consumer, TopicPartition partition, long records) {
        long end = System.nanoTime() + PATIENCE.toNanos();
        while (consumer.position(partition) < records && System.nanoTime() < end) consumer.poll(Duration.ofMillis(100));
        return "position " + consumer.position(partition);
    }

    /** The first record, or the exception. */
    private static String next(KafkaConsumer<byte[], byte[]> consumer) {
        long end = System.nanoTime() + PATIENCE.toNanos();
        try {
            while (System.nanoTime() < end) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                    return "record " + record.offset() + " of epoch " + record.leaderEpoch().orElse(-1);
                }
            }
            return "nothing";
        } catch (LogTruncationException truncated) {
            return "LogTruncationException " + truncated.divergentOffsets().values().stream()
                .map(diverges -> diverges.offset() + " of epoch " + diverges.leaderEpoch().orElse(-1))
                .toList();
        } catch (KafkaException other) {
            return other.getClass().getSimpleName() + " " + other.getMessage();
        }
    }
}
