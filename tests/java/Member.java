import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** A consumer in a group, on its own thread; it commits what it reads. */
final class Member implements ConsumerRebalanceListener {
    private final CountDownLatch assigned = new CountDownLatch(1);
    private volatile boolean leaving;
    private Thread thread;

    /** Returns once the member has its partitions, and has committed what is in them so far. */
    static Member join(String bootstrap, String group, String topic, int number) throws InterruptedException {
        Member member = new Member();
        Properties config = new Properties();
        config.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        config.put(ConsumerConfig.GROUP_ID_CONFIG, group);
        config.put(ConsumerConfig.CLIENT_ID_CONFIG, "member-" + number);
        config.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        config.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        config.put(ConsumerConfig.PARTITION_ASSIGNMENT_STRATEGY_CONFIG, RangeAssignor.class.getName());
        config.put(ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class);
        config.put(ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class);
        member.thread = new Thread(() -> member.run(config, topic));
        member.thread.setDaemon(true);
        member.thread.start();
        if (!member.assigned.await(60, TimeUnit.SECONDS)) throw new IllegalStateException(group + ": no assignment");
        return member;
    }

    private void run(Properties config, String topic) {
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(config)) {
            consumer.subscribe(List.of(topic), this);
            while (!leaving) {
                if (!consumer.poll(Duration.ofMillis(100)).isEmpty()) consumer.commitSync();
                if (assigned.getCount() > 0 && isAtTheEnd(consumer)) assigned.countDown();
            }
        }
    }

    private static boolean isAtTheEnd(KafkaConsumer<?, ?> consumer) {
        return !consumer.assignment().isEmpty()
            && consumer.endOffsets(consumer.assignment()).entrySet().stream()
                .allMatch(end -> consumer.position(end.getKey()) >= end.getValue());
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) { }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) { }

    /** Returns once it has left the group. */
    void leave() throws InterruptedException {
        leaving = true;
        thread.join();
    }
}
