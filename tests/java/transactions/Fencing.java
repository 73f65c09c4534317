import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

/**
 * Of producers with one transactional id only the latest can write, and a transaction that takes too long is aborted.
 *
 * <p>The one before it can neither commit what it has written nor write more, and nothing of it becomes visible to
 * read_committed; the latest works. A transaction past its timeout is aborted by the broker: what others have written
 * after it becomes visible, and its own commit comes too late.
 */
public final class Fencing {
    /** What a Kafka 4.3 has the client throw, in the order in which it is asked here. */
    private static final List<String> KAFKA = List.of(
        "commit: ProducerFencedException",
        "send: InvalidProducerEpochException, commit: InvalidProducerEpochException, abort: ProducerFencedException",
        "abort: ProducerFencedException");
    /** After a timeout; with transaction.version 2 that raises the epoch in another way. */
    private static final List<String> KAFKA_LATE = List.of(
        "late commit: ProducerFencedException, abort: ProducerFencedException, another transaction: ProducerFencedException",
        "late send: InvalidProducerEpochException, commit: InvalidProducerEpochException, abort: ProducerFencedException,"
            + " another transaction: ProducerFencedException");
    private static final List<String> KAFKA_LATE_IN_VERSION_2 = List.of(
        "late commit: InvalidTxnStateException, abort: KafkaException, another transaction: KafkaException",
        "late send: InvalidProducerEpochException, commit: InvalidProducerEpochException, abort: nothing,"
            + " another transaction: nothing");
    /** Past a transaction's timeout: how long until a broker has looked and aborted it. A Kafka looks every 10 s. */
    private static final Duration NOTICED = Duration.ofSeconds(25);
    private static final int TIMEOUT_MS = 2000;

    private final Support.Options options;
    private final List<String> seen = new ArrayList<>();

    public static void main(String[] args) throws Exception {
        Support.main("Fencing", args, options -> new Fencing(options).run());
    }

    private Fencing(Support.Options options) {
        this.options = options;
    }

    private String run() throws Exception {
        // The slow one first: the others' work is done while it waits.
        TimesOut timesOut = new TimesOut();
        commitOfTheFormer();
        sendOfTheFormer();
        abortOfTheFormer();
        pingPong(options.size(10, 100));
        long took = timesOut.finish();
        List<String> expected = new ArrayList<>(KAFKA);
        boolean version2 = transactionVersion() >= 2;
        expected.addAll(version2 ? KAFKA_LATE_IN_VERSION_2 : KAFKA_LATE);
        Support.check(seen.equals(expected), () -> "a fenced or late producer was told\n    " + String.join("\n    ", seen)
            + "\nand by Kafka\n    " + String.join("\n    ", expected));
        return String.format("fenced and late producers are told what Kafka tells them with transaction.version %s; a timeout of"
            + " %d ms was noticed after %d ms", version2 ? "2" : "before 2", TIMEOUT_MS, took);
    }

    private int transactionVersion() throws Exception {
        try (Admin admin = Support.admin(options)) {
            var level = admin.describeFeatures().featureMetadata().get(60, TimeUnit.SECONDS).finalizedFeatures()
                .get("transaction.version");
            return level == null ? 0 : level.maxVersionLevel();
        }
    }

    private KafkaProducer<String, String> producer(String id, Object... more) {
        Map<String, Object> config = Support.producer(options.bootstrap(), more);
        config.put("transactional.id", options.name(id));
        return new KafkaProducer<>(config);
    }

    private static void send(KafkaProducer<String, String> producer, String topic, String value) throws Exception {
        producer.send(new ProducerRecord<>(topic, 0, "", value)).get(60, TimeUnit.SECONDS);
    }

    private void checkVisible(String topic, String... expected) throws Exception {
        Support.awaitNothingOpen(options, topic, Duration.ofSeconds(10));
        List<String> visible = Support.read(options, topic, Support.COMMITTED).stream().map(ConsumerRecord::value)
            .collect(Collectors.toList());
        Support.check(visible.equals(List.of(expected)),
            () -> topic + ": read_committed sees " + visible + " in the place of " + List.of(expected));
    }

    /** It is over with this producer, whatever it tries. */
    private static void checkUseless(KafkaProducer<String, String> producer, String topic) {
        String begun = Support.thrown(() -> {
            producer.beginTransaction();
            send(producer, topic, "of a fenced producer");
            producer.commitTransaction();
        });
        Support.check(!begun.equals("nothing"), () -> "a fenced producer has committed another transaction");
    }

    private void commitOfTheFormer() throws Exception {
        String topic = Support.createTopic(options, "fencing-commit", 1);
        try (KafkaProducer<String, String> former = producer("commit"); KafkaProducer<String, String> latter = producer("commit")) {
            former.initTransactions();
            former.beginTransaction();
            send(former, topic, "committed by the former");
            former.commitTransaction();
            former.beginTransaction();
            send(former, topic, "open when it was fenced");
            latter.initTransactions();
            // That the latter may begin means that the former's transaction is over.
            Support.awaitNothingOpen(options, topic, Duration.ofSeconds(10));
            seen.add("commit: " + Support.thrown(former::commitTransaction));
            checkUseless(former, topic);
            latter.beginTransaction();
            send(latter, topic, "of the latter");
            latter.commitTransaction();
        }
        checkVisible(topic, "committed by the former", "of the latter");
    }

    private void sendOfTheFormer() throws Exception {
        String topic = Support.createTopic(options, "fencing-send", 1);
        try (KafkaProducer<String, String> former = producer("send"); KafkaProducer<String, String> latter = producer("send")) {
            former.initTransactions();
            former.beginTransaction();
            send(former, topic, "open when it was fenced");
            latter.initTransactions();
            latter.beginTransaction();
            send(latter, topic, "of the latter");
            // In the middle of the latter's transaction.
            seen.add("send: " + Support.thrown(() -> send(former, topic, "sent when it was fenced"))
                + ", commit: " + Support.thrown(former::commitTransaction)
                + ", abort: " + Support.thrown(former::abortTransaction));
            checkUseless(former, topic);
            latter.commitTransaction();
        }
        checkVisible(topic, "of the latter");
    }

    private void abortOfTheFormer() throws Exception {
        String topic = Support.createTopic(options, "fencing-abort", 1);
        try (KafkaProducer<String, String> former = producer("abort"); KafkaProducer<String, String> latter = producer("abort")) {
            former.initTransactions();
            former.beginTransaction();
            send(former, topic, "open when it was fenced");
            latter.initTransactions();
            latter.beginTransaction();
            send(latter, topic, "of the latter");
            // It must not abort the latter's.
            seen.add("abort: " + Support.thrown(former::abortTransaction));
            latter.commitTransaction();
        }
        checkVisible(topic, "of the latter");
    }

    /** Each fences the one before it, which has a transaction open. */
    private void pingPong(int times) throws Exception {
        String topic = Support.createTopic(options, "fencing-ping-pong", 1);
        List<String> expected = new ArrayList<>();
        KafkaProducer<String, String> former = null;
        for (int time = 0; time < times; time++) {
            String value = Integer.toString(time);
            KafkaProducer<String, String> latter = producer("ping-pong");
            latter.initTransactions();
            if (former != null) {
                KafkaProducer<String, String> fenced = former;
                String thrown = Support.thrown(fenced::commitTransaction);
                Support.check(thrown.equals("ProducerFencedException"),
                    () -> "ping-pong " + value + ": ProducerFencedException expected, and not " + thrown);
                former.close();
            }
            latter.beginTransaction();
            send(latter, topic, value);
            latter.commitTransaction();
            expected.add(value);
            latter.beginTransaction();
            send(latter, topic, "open after " + value);
            former = latter;
        }
        former.abortTransaction();
        former.close();
        checkVisible(topic, expected.toArray(new String[0]));
    }

    /** A transaction is left open past its timeout; another producer's record waits behind it. */
    private final class TimesOut {
        final String topic = Support.createTopic(options, "fencing-times-out", 1);
        final KafkaProducer<String, String> late = producer("times-out", "transaction.timeout.ms", TIMEOUT_MS);
        final String sends = Support.createTopic(options, "fencing-late-send", 1);
        final KafkaProducer<String, String> lateSender = producer("late-send", "transaction.timeout.ms", TIMEOUT_MS);
        final KafkaProducer<String, String> other = new KafkaProducer<>(Support.producer(options.bootstrap()));
        final KafkaConsumer<String, String> consumer =
            new KafkaConsumer<>(Support.consumer(options.bootstrap(), Support.COMMITTED));
        final Future<Long> noticed;
        final long began;

        TimesOut() throws Exception {
            late.initTransactions();
            late.beginTransaction();
            send(late, topic, "in time");
            late.commitTransaction();
            late.beginTransaction();
            lateSender.initTransactions();
            lateSender.beginTransaction();
            began = System.nanoTime();
            send(late, topic, "never committed");
            send(lateSender, sends, "never committed");
            send(other, topic, "behind it");
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            List<String> visible = poll(Duration.ofMillis(1000));
            // Not where the machine was so slow that it may have timed out.
            boolean tooSlow = millis() > TIMEOUT_MS;
            Support.check(tooSlow || visible.equals(List.of("in time")),
                () -> "with a transaction open, read_committed sees " + visible + " in the place of what is before it");
            noticed = Executors.newSingleThreadExecutor().submit(this::awaitVisible);
        }

        long millis() {
            return (System.nanoTime() - began) / 1_000_000;
        }

        List<String> poll(Duration time) {
            List<String> values = new ArrayList<>();
            long until = System.nanoTime() + time.toNanos();
            do {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(50))) values.add(record.value());
            } while (values.isEmpty() && System.nanoTime() < until);
            return values;
        }

        /** How long it took until what is behind it became visible. */
        private long awaitVisible() {
            consumer.seekToBeginning(consumer.assignment());
            List<String> visible = new ArrayList<>();
            while (visible.size() < 2) {
                visible.addAll(poll(Duration.ofMillis(100)));
                Support.check(millis() < TIMEOUT_MS + NOTICED.toMillis(),
                    () -> "a transaction with a timeout of " + TIMEOUT_MS + " ms is still open after " + millis() + " ms");
            }
            Support.check(visible.equals(List.of("in time", "behind it")), () -> "past the timeout, read_committed sees " + visible);
            return millis();
        }

        /** Returns how long it took until the broker had noticed. */
        long finish() throws Exception {
            long took = noticed.get(60, TimeUnit.SECONDS);
            Support.awaitNothingOpen(options, sends, NOTICED);
            seen.add("late commit: " + Support.thrown(late::commitTransaction) + ", abort: "
                + Support.thrown(late::abortTransaction) + ", another transaction: " + another(late, topic));
            String said = "late send: " + Support.thrown(() -> send(lateSender, sends, "after the timeout")) + ", commit: "
                + Support.thrown(lateSender::commitTransaction) + ", abort: " + Support.thrown(lateSender::abortTransaction);
            String goesOn = another(lateSender, sends);
            seen.add(said + ", another transaction: " + goesOn);
            for (KafkaProducer<?, ?> producer : List.of(late, lateSender, other)) producer.close();
            consumer.close();
            // Whatever became of that producer, the id can be used.
            try (KafkaProducer<String, String> next = producer("times-out")) {
                next.initTransactions();
                next.beginTransaction();
                send(next, topic, "of the next");
                next.commitTransaction();
            }
            checkVisible(topic, "in time", "behind it", "of the next");
            checkVisible(sends, goesOn.equals("nothing") ? new String[] {"another transaction"} : new String[0]);
            return took;
        }

        private String another(KafkaProducer<String, String> producer, String topic) {
            return Support.thrown(() -> {
                producer.beginTransaction();
                send(producer, topic, "another transaction");
                producer.commitTransaction();
            });
        }
    }
}
