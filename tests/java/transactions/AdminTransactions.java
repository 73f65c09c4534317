import static java.util.stream.Collectors.toList;

import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.AbortTransactionSpec;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.FenceProducersResult;
import org.apache.kafka.clients.admin.ListConsumerGroupOffsetsOptions;
import org.apache.kafka.clients.admin.ListConsumerGroupOffsetsSpec;
import org.apache.kafka.clients.admin.ListTransactionsOptions;
import org.apache.kafka.clients.admin.ProducerState;
import org.apache.kafka.clients.admin.TransactionDescription;
import org.apache.kafka.clients.admin.TransactionListing;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.utils.Exit;
import org.apache.kafka.tools.TransactionsCommand;

/**
 * An administrator sees transactions as they are, and can end those that hang.
 *
 * <p>What must hold of any broker is checked here. Beyond that, what Admin and kafka-transactions say, without ids and
 * times, is written to a transcript that is the same for all brokers that do as Kafka does.
 */
public final class AdminTransactions {
    private static final Duration SOON = Duration.ofSeconds(10);

    private final Support.Options options;
    private final Admin admin;
    private final String topic;
    private final TopicPartition first;
    private final TopicPartition second;
    private final List<String> transcript = new ArrayList<>();
    /** Producer ids, by what the transcript calls them. */
    private final Map<Long, String> producerIds = new HashMap<>();

    public static void main(String[] args) throws Exception {
        Support.main("AdminTransactions", args, options -> new AdminTransactions(options).run());
    }

    private AdminTransactions(Support.Options options) throws Exception {
        this.options = options;
        admin = Support.admin(options);
        topic = Support.createTopic(options, "administered", 2);
        first = new TopicPartition(topic, 0);
        second = new TopicPartition(topic, 1);
    }

    private String run() throws Exception {
        try {
            seeing();
            aborting();
            fencing();
            terminating();
            offsets();
        } catch (Throwable e) {
            transcript.forEach(System.err::println);
            throw e;
        }
        if (options.transcript() != null) {
            Files.write(options.transcript(), transcript);
        } else {
            transcript.forEach(System.out::println);
        }
        return transcript.size() + " lines of what Admin and kafka-transactions say";
    }

    private KafkaProducer<String, String> producer(String id) throws Exception {
        Map<String, Object> config = Support.producer(options.bootstrap(), "transactional.id", options.name(id));
        KafkaProducer<String, String> producer = new KafkaProducer<>(config);
        producer.initTransactions();
        producerIds.put(describe(id).producerId(), "ID OF " + id);
        return producer;
    }

    private static void send(KafkaProducer<String, String> producer, TopicPartition partition, String value) throws Exception {
        producer.send(new ProducerRecord<>(partition.topic(), partition.partition(), "", value)).get(60, TimeUnit.SECONDS);
    }

    private List<String> visible() throws Exception {
        Support.awaitNothingOpen(options, topic, SOON);
        return Support.read(options, topic, Support.COMMITTED).stream().map(ConsumerRecord::value).sorted().collect(toList());
    }

    private static <T> T get(KafkaFuture<T> future) throws Exception {
        return future.get(60, TimeUnit.SECONDS);
    }

    private TransactionDescription describe(String id) throws Exception {
        return get(admin.describeTransactions(List.of(options.name(id))).description(options.name(id)));
    }

    private List<ProducerState> producers(TopicPartition partition) throws Exception {
        return get(admin.describeProducers(List.of(partition)).partitionResult(partition)).activeProducers();
    }

    private ProducerState producerOf(String id, TopicPartition partition) throws Exception {
        long producerId = describe(id).producerId();
        return producers(partition).stream().filter(state -> state.producerId() == producerId).findFirst()
            .orElseThrow(() -> new Support.Broken("describeProducers does not have the producer of " + id));
    }

    /** This run's, by their ids without the run. */
    private Map<String, TransactionState> list(ListTransactionsOptions filter) throws Exception {
        Map<String, TransactionState> listed = new TreeMap<>();
        for (TransactionListing listing : get(admin.listTransactions(filter).all())) {
            if (listing.transactionalId().endsWith("-" + options.run())) {
                String id = listing.transactionalId().substring(0, listing.transactionalId().length() - options.run().length() - 1);
                listed.put(id, listing.state());
            }
        }
        return listed;
    }

    private void awaitState(String id, TransactionState state) throws Exception {
        Support.await(id + " in " + state, SOON, () -> describe(id).state() == state);
    }

    private void seeing() throws Exception {
        KafkaProducer<String, String> open = producer("open"), committed = producer("committed"), aborted = producer("aborted"),
            empty = producer("empty");
        for (KafkaProducer<String, String> producer : List.of(open, committed, aborted)) {
            producer.beginTransaction();
            for (TopicPartition partition : List.of(first, second)) send(producer, partition, "seen");
        }
        committed.commitTransaction();
        aborted.abortTransaction();
        awaitState("committed", TransactionState.COMPLETE_COMMIT);
        awaitState("aborted", TransactionState.COMPLETE_ABORT);
        // The durations below are of whole milliseconds.
        Thread.sleep(10);

        Map<String, TransactionState> all = new TreeMap<>(Map.of("open", TransactionState.ONGOING,
            "committed", TransactionState.COMPLETE_COMMIT, "aborted", TransactionState.COMPLETE_ABORT,
            "empty", TransactionState.EMPTY));
        checkEqual("listTransactions", all, list(new ListTransactionsOptions()));
        checkEqual("listTransactions that are ongoing", Map.of("open", TransactionState.ONGOING),
            list(new ListTransactionsOptions().filterStates(List.of(TransactionState.ONGOING))));
        checkEqual("listTransactions in two states", Set.of("committed", "empty"), list(new ListTransactionsOptions()
            .filterStates(List.of(TransactionState.COMPLETE_COMMIT, TransactionState.EMPTY))).keySet());
        checkEqual("listTransactions of a producer", Set.of("aborted"), list(new ListTransactionsOptions()
            .filterProducerIds(List.of(describe("aborted").producerId()))).keySet());
        checkEqual("listTransactions of a producer that is not there", Set.of(),
            list(new ListTransactionsOptions().filterProducerIds(List.of(Long.MAX_VALUE))).keySet());
        checkEqual("listTransactions that have run for an hour, the open one", false,
            list(new ListTransactionsOptions().filterOnDuration(3_600_000)).containsKey("open"));
        checkEqual("listTransactions by pattern", Set.of("open", "empty"), list(new ListTransactionsOptions()
            .filterOnTransactionalIdPattern("(open|emp.*)-" + options.run())).keySet());
        say("listTransactions that have run for a millisecond", () -> list(new ListTransactionsOptions().filterOnDuration(1)));
        say("listTransactions that have run for an hour", () -> list(new ListTransactionsOptions().filterOnDuration(3_600_000)));
        say("listTransactions by a pattern for a part", () -> list(new ListTransactionsOptions()
            .filterOnTransactionalIdPattern(options.run())));
        say("listTransactions by a pattern that is none", () -> list(new ListTransactionsOptions()
            .filterOnTransactionalIdPattern("(")));

        checkEqual("describeTransactions, partitions", Set.of(first, second), describe("open").topicPartitions());
        for (String id : all.keySet()) say("describeTransactions " + id, () -> shown(describe(id)));
        say("describeTransactions of nobody", () -> describe("nobody"));

        List<ConsumerRecord<String, String>> records = Support.read(options, topic, Support.UNCOMMITTED);
        for (TopicPartition partition : List.of(first, second)) {
            long start = producerOf("open", partition).currentTransactionStartOffset().orElse(-1);
            Support.check(records.stream().anyMatch(record -> record.partition() == partition.partition() && record.offset() == start),
                () -> "describeProducers: the open transaction in " + partition + " begins at " + start);
        }
        checkEqual("describeProducers, the start of a transaction that ended", true,
            producerOf("committed", first).currentTransactionStartOffset().isEmpty());
        say("describeProducers", () -> producers(first).stream().map(this::shown).sorted().collect(toList()));

        tool("list");
        tool("list", "--transactional-id-pattern", "(open|emp.*)-" + options.run());
        tool("list", "--duration-filter", "3600000");
        for (String id : all.keySet()) tool("describe", "--transactional-id", options.name(id));
        tool("describe", "--transactional-id", options.name("nobody"));
        tool("describe-producers", "--topic", topic, "--partition", "0");
        tool("describe-producers", "--topic", topic, "--partition", "0", "--broker-id", "0");
        // It hangs where no coordinator knows it: this one does not.
        tool("find-hanging", "--topic", topic);
        tool("find-hanging", "--topic", topic, "--partition", "0", "--max-transaction-timeout", "0");
        tool("find-hanging", "--broker-id", "0");

        open.commitTransaction();
        for (KafkaProducer<?, ?> producer : List.of(open, committed, aborted, empty)) producer.close();
        checkEqual("visible at the end", List.of("seen", "seen", "seen", "seen"), visible());
    }

    /** What an open transaction has in a partition, ended there without its coordinator. */
    private void aborting() throws Exception {
        // Its second life, so that there is an earlier epoch.
        producer("hanging").close();
        KafkaProducer<String, String> hanging = producer("hanging");
        hanging.beginTransaction();
        send(hanging, first, "hanging");
        ProducerState state = producerOf("hanging", first);
        short epoch = (short) state.producerEpoch();
        int coordinatorEpoch = state.coordinatorEpoch().orElse(0);
        say("abortTransaction of an earlier epoch", () -> get(admin.abortTransaction(
            new AbortTransactionSpec(first, state.producerId(), (short) (epoch - 1), coordinatorEpoch)).all()));
        say("abortTransaction of a producer that is not there", () -> get(admin.abortTransaction(
            new AbortTransactionSpec(second, 1L << 60, (short) 0, 0)).all()));
        say("abortTransaction", () -> get(admin.abortTransaction(
            new AbortTransactionSpec(first, state.producerId(), epoch, coordinatorEpoch)).all()));
        say("describeProducers of it, then", () -> shown(producerOf("hanging", first)));
        say("describeTransactions of it, then", () -> shown(describe("hanging")));
        checkEqual("visible past a transaction that was aborted in its partition", false, visible().contains("hanging"));
        say("and its commit, then", call(hanging::commitTransaction));
        hanging.close();
        checkEqual("visible after its commit", false, visible().contains("hanging"));

        KafkaProducer<String, String> another = producer("hanging-too");
        another.beginTransaction();
        send(another, first, "hanging too");
        String start = Long.toString(producerOf("hanging-too", first).currentTransactionStartOffset().orElse(-1));
        tool("abort", "--topic", topic, "--partition", "0", "--start-offset", "999999");
        tool("abort", "--topic", topic, "--partition", "0", "--start-offset", start);
        tool("abort", "--topic", topic, "--partition", "0", "--start-offset", start);
        checkEqual("visible past what kafka-transactions has aborted", false, visible().contains("hanging too"));
        say("abort by its producer, then", call(another::abortTransaction));
        another.close();
    }

    private void fencing() throws Exception {
        KafkaProducer<String, String> fenced = producer("fenced");
        fenced.beginTransaction();
        send(fenced, first, "fenced");
        TransactionDescription before = describe("fenced");
        String id = options.name("fenced");
        FenceProducersResult result = admin.fenceProducers(List.of(id));
        get(result.all());
        checkEqual("fenceProducers, producer id", before.producerId(), get(result.producerId(id)));
        Support.check(get(result.epochId(id)) > before.producerEpoch(), () -> "fenceProducers has not raised the epoch");
        checkEqual("visible after fenceProducers", false, visible().contains("fenced"));
        say("describeTransactions after fenceProducers", () -> shown(describe("fenced")));
        say("commit after fenceProducers", call(fenced::commitTransaction));
        fenced.close();
        say("fenceProducers of nobody", () -> get(admin.fenceProducers(List.of(options.name("fenced-nobody"))).all()));
        say("describeTransactions of nobody, then", () -> shown(describe("fenced-nobody")));
        checkEqual("visible after its commit", false, visible().contains("fenced"));
    }

    private void terminating() throws Exception {
        KafkaProducer<String, String> terminated = producer("terminated");
        terminated.beginTransaction();
        send(terminated, first, "terminated");
        say("forceTerminateTransaction", () -> get(admin.forceTerminateTransaction(options.name("terminated")).result()));
        checkEqual("visible after forceTerminateTransaction", false, visible().contains("terminated"));
        say("commit after forceTerminateTransaction", call(terminated::commitTransaction));
        terminated.close();
        KafkaProducer<String, String> another = producer("terminated-too");
        another.beginTransaction();
        send(another, first, "terminated too");
        tool("forceTerminateTransaction", "--transactionalId", options.name("terminated-too"));
        checkEqual("visible after forceTerminateTransaction", false, visible().contains("terminated too"));
        another.close();
        tool("forceTerminateTransaction", "--transactionalId", options.name("terminated-nobody"));
    }

    /** Offsets in a transaction that is open are not there yet, and who asks for stable ones waits for its end. */
    private void offsets() throws Exception {
        String group = options.name("administered-group");
        try (KafkaProducer<String, String> producer = producer("offsets")) {
            commitOffset(producer, group, first, 5);
            producer.commitTransaction();
            awaitOffset(group, 5);

            commitOffset(producer, group, first, 7);
            checkEqual("offset while one is open", 5L, offset(group, false, 60_000));
            // Kafka's Admin leaves out what is not stable; a consumer asks until it is.
            checkEqual("stable offset while one is open", Optional.empty(), Optional.ofNullable(offset(group, true, 30_000)));
            say("stable offset of another partition", () -> get(admin.listConsumerGroupOffsets(
                Map.of(group, new ListConsumerGroupOffsetsSpec().topicPartitions(List.of(second))),
                new ListConsumerGroupOffsetsOptions().requireStable(true).timeoutMs(30_000)).partitionsToOffsetAndMetadata(group)));
            checkEqual("a consumer's committed while one is open", "TimeoutException",
                Support.thrown(() -> committed(group, Duration.ofMillis(1500))));
            CompletableFuture<Long> waiting = new CompletableFuture<>();
            Support.daemon("waits for a stable offset", () -> waiting.complete(committed(group, Duration.ofSeconds(30))));
            Thread.sleep(1000);
            checkEqual("a consumer has its offset while one is open", false, waiting.isDone());
            producer.commitTransaction();
            checkEqual("the stable offset that was waited for", 7L, waiting.get(30, TimeUnit.SECONDS));
            checkEqual("offset after the commit", 7L, offset(group, false, 60_000));

            commitOffset(producer, group, first, 9);
            producer.abortTransaction();
            checkEqual("stable offset after an abort", 7L, offset(group, true, 30_000));
            say("describeTransactions with offsets only", () -> {
                commitOffset(producer, group, first, 11);
                return describe("offsets").topicPartitions().stream().map(TopicPartition::topic).collect(toList());
            });
            get(admin.fenceProducers(List.of(options.name("offsets"))).all());
            checkEqual("stable offset after fenceProducers", 7L, offset(group, true, 30_000));
        }
    }

    private static void commitOffset(KafkaProducer<String, String> producer, String group, TopicPartition partition, long offset) {
        producer.beginTransaction();
        producer.sendOffsetsToTransaction(Map.of(partition, new OffsetAndMetadata(offset)), new ConsumerGroupMetadata(group));
    }

    private Long offset(String group, boolean stable, int timeoutMs) throws Exception {
        OffsetAndMetadata offset = get(admin.listConsumerGroupOffsets(group, new ListConsumerGroupOffsetsOptions()
            .requireStable(stable).timeoutMs(timeoutMs)).partitionsToOffsetAndMetadata()).get(first);
        return offset == null ? null : offset.offset();
    }

    /** As a consumer has it, which always asks for a stable one. */
    private long committed(String group, Duration patience) {
        Map<String, Object> config = Support.consumer(options.bootstrap(), Support.COMMITTED, "group.id", group);
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config)) {
            return consumer.committed(Set.of(first), patience).get(first).offset();
        }
    }

    private void awaitOffset(String group, long expected) throws Exception {
        Support.await("offset " + expected, SOON, () -> Long.valueOf(expected).equals(offset(group, true, 30_000)));
    }

    private static void checkEqual(String what, Object expected, Object is) {
        Support.check(expected.equals(is), () -> what + ": " + expected + " expected, and not " + is);
    }

    private String shown(TransactionDescription transaction) {
        return String.format("%s, %s, epoch %d, timeout %d ms, %s, partitions %s", transaction.state(),
            producerIds.getOrDefault(transaction.producerId(), "ID"), transaction.producerEpoch(), transaction.transactionTimeoutMs(),
            transaction.transactionStartTimeMs().isPresent() ? "started" : "not started",
            transaction.topicPartitions().stream().map(partition -> "TOPIC-" + partition.partition()).sorted().collect(toList()));
    }

    private String shown(ProducerState state) {
        return String.format("%s, epoch %d, last sequence %d, last timestamp %s, coordinator epoch %s, transaction %s",
            producerIds.getOrDefault(state.producerId(), "ID"), state.producerEpoch(), state.lastSequence(),
            state.lastTimestamp() > 0 ? "TIME" : state.lastTimestamp(), state.coordinatorEpoch().isPresent() ? "known" : "unknown",
            state.currentTransactionStartOffset().isPresent() ? "open at " + state.currentTransactionStartOffset().getAsLong() : "none");
    }

    private void say(String what, Callable<?> call) {
        String answer;
        try {
            answer = String.valueOf(call.call());
        } catch (Support.Broken e) {
            throw e;
        } catch (Exception e) {
            answer = Support.cause(e).getClass().getSimpleName();
        }
        transcript.add(what + ": " + answer.replace(options.run(), "RUN"));
    }

    private static Callable<?> call(Runnable call) {
        return () -> {
            call.run();
            return "done";
        };
    }

    /** Runs kafka-transactions in this JVM. */
    private void tool(String... arguments) {
        List<String> command = new ArrayList<>(List.of("--bootstrap-server", options.bootstrap()));
        command.addAll(List.of(arguments));
        transcript.add(masked("$ kafka-transactions " + String.join(" ", arguments)));

        ByteArrayOutputStream said = new ByteArrayOutputStream();
        PrintStream out = System.out, err = System.err;
        PrintStream both = new PrintStream(said, true, StandardCharsets.UTF_8);
        System.setOut(both);
        System.setErr(both);
        Exit.Procedure exiting = (code, message) -> {
            throw new Exited(code);
        };
        Exit.setExitProcedure(exiting);
        int code = 0;
        try {
            TransactionsCommand.main(command.toArray(new String[0]));
        } catch (Exited e) {
            code = e.code;
        } catch (Exception e) {
            both.println(e);
            code = 1;
        } finally {
            Exit.resetExitProcedure();
            System.setOut(out);
            System.setErr(err);
        }
        transcript.addAll(shown(said.toString(StandardCharsets.UTF_8)));
        if (code != 0) transcript.add("(exit " + code + ")");
    }

    private static final class Exited extends RuntimeException {
        final int code;

        Exited(int code) {
            this.code = code;
        }
    }

    /** A table without the columns that are never the same, its rows in order; anything else as it is. */
    private List<String> shown(String said) {
        List<String> lines = said.lines().filter(line -> !line.isBlank() && !line.startsWith("\tat ")).collect(toList());
        if (lines.isEmpty() || !lines.get(0).contains("\t")) return lines.stream().map(this::masked).collect(toList());
        List<String> names = cells(lines.get(0));
        List<String> rows = new ArrayList<>();
        for (String line : lines.subList(1, lines.size())) {
            List<String> cells = cells(line);
            // Of all there are on this broker, those of this run.
            if (names.contains("TransactionalId") && !line.contains("-" + options.run())) continue;
            for (int i = 0; i < cells.size(); i++) {
                String cell = cells.get(i);
                cells.set(i, switch (names.get(i)) {
                    case "ProducerId" -> producerIds.getOrDefault(Long.parseLong(cell), "ID");
                    case "LastTimestamp", "CurrentTransactionStartTimeMs", "TransactionDurationMs" ->
                        cell.matches("\\d+") ? "TIME" : cell;
                    case "LatestCoordinatorEpoch" -> cell.matches("\\d+") ? "known" : cell;
                    case "TopicPartitions" -> Arrays.stream(cell.split(",")).sorted().collect(toList()).toString();
                    default -> cell;
                });
            }
            rows.add(masked(String.join("\t", cells)));
        }
        Collections.sort(rows);
        rows.add(0, String.join("\t", names));
        return rows;
    }

    private static List<String> cells(String line) {
        return Arrays.stream(line.split("\t")).map(String::strip).collect(toList());
    }

    private String masked(String text) {
        return text.replace(options.run(), "RUN").replace(options.bootstrap(), "SERVER");
    }
}
