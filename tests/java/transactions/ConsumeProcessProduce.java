import static java.util.stream.Collectors.toMap;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.BooleanSupplier;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListConsumerGroupOffsetsOptions;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.errors.ProducerFencedException;

/**
 * A group that copies its input in transactions, offsets and outputs together, copies each record exactly once.
 *
 * <p>Members come and go, abort some of their transactions, and one is a process that is killed, at any moment or between
 * its offsets and its commit, and started again. At the end each output partition has the records of its input partition,
 * once and in order, and the group's offsets are the ends of the input. A member of an earlier generation can commit
 * nothing.
 */
public final class ConsumeProcessProduce {
    private static final int PARTITIONS = 6;

    /** Where and as whom a member works. */
    private record Work(String bootstrap, String group, String input, String output, String transactionalId, String instance,
                        long seed) { }

    private static final AtomicLong COMMITTED = new AtomicLong();
    private static final AtomicLong ABORTED = new AtomicLong();

    public static void main(String[] args) throws Exception {
        if (args[0].equals("member")) {
            String instance = args[6].isEmpty() ? null : args[6];
            Work work = new Work(args[1], args[2], args[3], args[4], args[5], instance, Long.parseLong(args[7]));
            work(work, Child::isStopping, true);
        } else {
            Support.main("ConsumeProcessProduce", args, ConsumeProcessProduce::run);
        }
    }

    private static String run(Support.Options options) throws Exception {
        String input = Support.createTopic(options, "cpp-input", PARTITIONS);
        String output = Support.createTopic(options, "cpp-output", PARTITIONS);
        String group = options.name("cpp-group");
        Random random = new Random(options.seed());
        int records = options.size(8_000, 150_000);

        ExecutorService threads = Executors.newCachedThreadPool();
        Stop stop = new Stop();
        List<Future<?>> running = new ArrayList<>();
        for (int member = 0; member < 2; member++) {
            Work work = new Work(options.bootstrap(), group, input, output, options.name("cpp-member" + member), null,
                random.nextLong());
            running.add(threads.submit(() -> {
                work(work, stop, false);
                return null;
            }));
        }
        Child child = child(options, group, input, output, 0, random);
        // What there is to copy comes as long as members come and go.
        Stop written = new Stop();
        Future<Map<TopicPartition, Long>> writing = threads.submit(() -> writeInput(options.bootstrap(), input, records, written));
        int kills = options.size(2, 10);
        for (int life = 1; life <= kills; life++) {
            child.await("a transaction", Support.PATIENCE, line -> line.startsWith("committed"));
            Thread.sleep(random.nextInt(options.size(500, 6000)));
            child.forget();
            if (life % 2 == 1) {
                child.await("offsets in a transaction", Support.PATIENCE, line -> line.equals("offsets sent"));
                // Before, in or right after its commit.
                Thread.sleep(random.nextInt(6));
            }
            child.kill();
            if (life % 3 == 1) {
                // Another member, for a moment: a rebalance under everybody's hands.
                Stop soon = new Stop();
                Work work = new Work(options.bootstrap(), group, input, output, options.name("cpp-guest" + life), null,
                    random.nextLong());
                Future<?> guest = threads.submit(() -> {
                    work(work, soon, false);
                    return null;
                });
                child = child(options, group, input, output, life, random);
                Thread.sleep(options.size(1000, 8000));
                soon.now = true;
                guest.get(Support.PATIENCE.toSeconds(), TimeUnit.SECONDS);
            } else {
                child = child(options, group, input, output, life, random);
            }
        }
        child.await("a transaction after the last start", Support.PATIENCE, line -> line.startsWith("committed"));
        written.now = true;
        Map<TopicPartition, Long> ends = writing.get(options.size(60, 600), TimeUnit.SECONDS);
        try (Admin admin = Support.admin(options)) {
            Support.await("the group's offsets at the input's ends", Duration.ofSeconds(options.size(60, 600)), () -> {
                for (Future<?> member : running) {
                    if (member.isDone()) member.get();
                }
                return committed(admin, group).equals(ends);
            });
            stop.now = true;
            for (Future<?> member : running) member.get(Support.PATIENCE.toSeconds(), TimeUnit.SECONDS);
            child.stop();
            child.end(Support.PATIENCE);
            Support.awaitNothingOpen(options, output, Duration.ofSeconds(10));
            Support.check(committed(admin, group).equals(ends), () -> "the group's offsets are no longer the input's ends");
        }

        long copied = checkOutput(options, input, output);
        long hidden = Support.read(options, output, Support.UNCOMMITTED).size() - copied;
        Support.check(hidden > 0, () -> "nothing was aborted: read_uncommitted sees no more than read_committed");
        String refusal = commitOfAnEarlierGeneration(options, input, output);
        return String.format("%d records copied once by members of which one was killed %d times; %d hidden; the threads"
            + " committed %d transactions and aborted %d; an earlier generation's offsets: %s", copied, kills, hidden,
            COMMITTED.get(), ABORTED.get(), refusal);
    }

    private static final class Stop implements BooleanSupplier {
        volatile boolean now;

        @Override
        public boolean getAsBoolean() {
            return now;
        }
    }

    private static Child child(Support.Options options, String group, String input, String output, int life, Random random)
            throws Exception {
        // As a static member it takes its partitions back at once; as a dynamic one, once its former self is given up.
        String instance = life % 3 != 2 ? options.name("instance") : "";
        return Child.start(options, "member in life " + life, line -> { }, ConsumeProcessProduce.class, "member",
            options.bootstrap(), group, input, output, options.name("cpp-child"), instance, Long.toString(random.nextLong()));
    }

    /** At least so many records, and more until it is told to stop; returns the ends. */
    private static Map<TopicPartition, Long> writeInput(String bootstrap, String input, int atLeast, BooleanSupplier stop)
            throws Exception {
        long[] next = new long[PARTITIONS];
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(Support.producer(bootstrap))) {
            for (long number = 0; number < atLeast || !stop.getAsBoolean(); number++) {
                int partition = (int) (number % PARTITIONS);
                producer.send(new ProducerRecord<>(input, partition, Integer.toString(partition), Long.toString(next[partition]++)));
                if (number % 500 == 499) Thread.sleep(atLeast > 10_000 ? 100 : 500);
            }
        }
        Map<TopicPartition, Long> ends = new HashMap<>();
        for (int partition = 0; partition < PARTITIONS; partition++) ends.put(new TopicPartition(input, partition), next[partition]);
        return ends;
    }

    private static Map<TopicPartition, Long> committed(Admin admin, String group) throws Exception {
        Map<TopicPartition, OffsetAndMetadata> offsets = admin.listConsumerGroupOffsets(group,
            new ListConsumerGroupOffsetsOptions().requireStable(false)).partitionsToOffsetAndMetadata().get(60, TimeUnit.SECONDS);
        return offsets.entrySet().stream().collect(toMap(Map.Entry::getKey, entry -> entry.getValue().offset()));
    }

    /** The loop that Kafka's documentation gives. */
    private static void work(Work work, BooleanSupplier stop, boolean says) {
        Random random = new Random(work.seed);
        // A new producer and consumer wherever the old ones are of no use any more.
        while (!stop.getAsBoolean()) {
            Map<String, Object> consumes = Support.consumer(work.bootstrap, Support.COMMITTED, "group.id", work.group,
                "session.timeout.ms", 6000, "heartbeat.interval.ms", 500, "max.poll.records", 100);
            if (work.instance != null) consumes.put("group.instance.id", work.instance);
            Map<String, Object> produces = Support.producer(work.bootstrap, "transactional.id", work.transactionalId,
                "batch.size", 1024);
            try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(consumes);
                 KafkaProducer<String, String> producer = new KafkaProducer<>(produces)) {
                producer.initTransactions();
                consumer.subscribe(List.of(work.input));
                while (!stop.getAsBoolean()) {
                    ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(100));
                    if (!records.isEmpty()) copy(work, random, consumer, producer, records, says);
                }
            } catch (ProducerFencedException | FencedInstanceIdException e) {
                throw new Support.Broken(work.transactionalId + ": " + e + ", and nobody else has this id");
            }
        }
    }

    private static void copy(Work work, Random random, KafkaConsumer<String, String> consumer,
            KafkaProducer<String, String> producer, ConsumerRecords<String, String> records, boolean says) {
        try {
            producer.beginTransaction();
            for (ConsumerRecord<String, String> record : records) {
                producer.send(new ProducerRecord<>(work.output, record.partition(), record.key(), record.value()));
            }
            if (random.nextInt(4) == 0) producer.flush();
            producer.sendOffsetsToTransaction(records.nextOffsets(), consumer.groupMetadata());
            if (says) System.out.println("offsets sent");
            if (random.nextInt(3) == 0) Thread.sleep(random.nextInt(30));
            if (random.nextInt(5) == 0) {
                producer.abortTransaction();
                ABORTED.incrementAndGet();
                backToCommitted(consumer);
            } else {
                producer.commitTransaction();
                COMMITTED.incrementAndGet();
                if (says) System.out.println("committed " + records.count());
            }
        } catch (ProducerFencedException e) {
            throw e;
        } catch (KafkaException e) {
            // Such as a rebalance since the poll.
            producer.abortTransaction();
            ABORTED.incrementAndGet();
            backToCommitted(consumer);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private static void backToCommitted(KafkaConsumer<?, ?> consumer) {
        Set<TopicPartition> assigned = consumer.assignment();
        consumer.committed(assigned).forEach((partition, offset) -> {
            if (offset != null) {
                consumer.seek(partition, offset.offset());
            } else {
                consumer.seekToBeginning(Set.of(partition));
            }
        });
    }

    /** Each output partition is its input partition. */
    private static long checkOutput(Support.Options options, String input, String output) {
        Map<Integer, List<String>> expected = byPartition(options, input), found = byPartition(options, output);
        for (int partition = 0; partition < PARTITIONS; partition++) {
            List<String> wanted = expected.get(partition), there = found.getOrDefault(partition, List.of());
            for (int i = 0; i < Math.max(wanted.size(), there.size()); i++) {
                String want = i < wanted.size() ? wanted.get(i) : "the end", is = i < there.size() ? there.get(i) : "the end";
                String where = "output " + partition + ", record " + i;
                Support.check(want.equals(is), () -> where + ": " + is + " in the place of " + want + "; "
                    + there.size() + " records of " + wanted.size());
            }
        }
        return found.values().stream().mapToLong(List::size).sum();
    }

    private static Map<Integer, List<String>> byPartition(Support.Options options, String topic) {
        Map<Integer, List<String>> values = new HashMap<>();
        Support.read(options, topic, Support.COMMITTED,
            record -> values.computeIfAbsent(record.partition(), first -> new ArrayList<>()).add(record.value()));
        return values;
    }

    /** A member that has not noticed a rebalance: its offsets are refused, and its transaction can only be aborted. */
    private static String commitOfAnEarlierGeneration(Support.Options options, String input, String output) throws Exception {
        String group = options.name("cpp-generations");
        TopicPartition partition = new TopicPartition(input, 0);
        Map<String, Object> config = Support.consumer(options.bootstrap(), Support.COMMITTED, "group.id", group);
        Map<String, Object> produces = Support.producer(options.bootstrap(), "transactional.id", options.name("cpp-zombie"));
        try (KafkaConsumer<String, String> first = new KafkaConsumer<>(config);
             KafkaConsumer<String, String> second = new KafkaConsumer<>(config);
             KafkaProducer<String, String> producer = new KafkaProducer<>(produces)) {
            first.subscribe(List.of(input));
            second.subscribe(List.of(input));
            awaitAssignment(first);
            ConsumerGroupMetadata earlier = first.groupMetadata();
            awaitAssignment(first, second);
            Support.check(first.groupMetadata().generationId() > earlier.generationId(), () -> "no new generation");

            producer.initTransactions();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(output, 0, "0", "of an earlier generation")).get();
            String refused = Support.thrown(() -> {
                producer.sendOffsetsToTransaction(Map.of(partition, new OffsetAndMetadata(1)), earlier);
                producer.commitTransaction();
            });
            Support.check(refused.equals(CommitFailedException.class.getSimpleName()),
                () -> "offsets of an earlier generation: CommitFailedException expected, and not " + refused);
            producer.abortTransaction();
            try (Admin admin = Support.admin(options)) {
                Map<TopicPartition, Long> committed = committed(admin, group);
                Support.check(committed.isEmpty(), () -> "an earlier generation has committed " + committed);
            }
            // The same of the present one.
            producer.beginTransaction();
            producer.sendOffsetsToTransaction(Map.of(partition, new OffsetAndMetadata(2)), first.groupMetadata());
            producer.commitTransaction();
            Support.check(first.committed(Set.of(partition)).get(partition).offset() == 2, () -> "the present generation's are not there");
            return refused;
        }
    }

    @SafeVarargs
    private static void awaitAssignment(KafkaConsumer<String, String>... members) throws Exception {
        Support.await("an assignment for " + members.length, Duration.ofSeconds(30), () -> {
            int partitions = 0;
            for (KafkaConsumer<String, String> member : members) {
                member.poll(Duration.ofMillis(50));
                if (member.assignment().isEmpty()) return false;
                partitions += member.assignment().size();
            }
            return partitions == PARTITIONS;
        });
    }
}
