import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.PrintStream;
import java.lang.management.ManagementFactory;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs a list of Kafka's console tools, one after the other in this JVM, and prints what each one says.
 *
 * <pre>java ConsoleTools BOOTSTRAP COMMANDS FOLDER</pre>
 *
 * A line of COMMANDS is a tool and its arguments, without --bootstrap-server; lines that begin with "| " are its
 * stdin. In arguments, $dir stands for FOLDER. Beside Kafka's tools there are:
 *
 * <ul>
 * <li>file NAME: writes its stdin to that file in FOLDER;
 * <li>join GROUP TOPIC: leaves a consumer running in the group, once it has read its partitions to their ends;
 * <li>leave: ends all of those;
 * <li>settle: waits for what a Kafka still does after it has answered;
 * <li>admin-methods: AdminMethods.
 * </ul>
 */
public final class ConsoleTools {
    /** A tool that takes longer is given up, and the transcript says so. */
    private static final long LIMIT_MS = 30_000;
    private static final Pattern WORD = Pattern.compile("'([^']*)'|(\\S+)");
    private static final Map<String, String> TOOLS = Map.ofEntries(
        Map.entry("kafka-acls", "org.apache.kafka.tools.AclCommand"),
        Map.entry("kafka-broker-api-versions", "org.apache.kafka.tools.BrokerApiVersionsCommand"),
        Map.entry("kafka-client-metrics", "org.apache.kafka.tools.ClientMetricsCommand"),
        Map.entry("kafka-cluster", "org.apache.kafka.tools.ClusterTool"),
        Map.entry("kafka-configs", "kafka.admin.ConfigCommand"),
        Map.entry("kafka-console-consumer", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
        Map.entry("kafka-console-producer", "org.apache.kafka.tools.ConsoleProducer"),
        Map.entry("kafka-consumer-groups", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
        Map.entry("kafka-consumer-perf-test", "org.apache.kafka.tools.ConsumerPerformance"),
        Map.entry("kafka-delegation-tokens", "org.apache.kafka.tools.DelegationTokenCommand"),
        Map.entry("kafka-delete-records", "org.apache.kafka.tools.DeleteRecordsCommand"),
        Map.entry("kafka-e2e-latency", "org.apache.kafka.tools.EndToEndLatency"),
        Map.entry("kafka-features", "org.apache.kafka.tools.FeatureCommand"),
        Map.entry("kafka-get-offsets", "org.apache.kafka.tools.GetOffsetShell"),
        Map.entry("kafka-groups", "org.apache.kafka.tools.GroupsCommand"),
        Map.entry("kafka-leader-election", "org.apache.kafka.tools.LeaderElectionCommand"),
        Map.entry("kafka-log-dirs", "org.apache.kafka.tools.LogDirsCommand"),
        Map.entry("kafka-metadata-quorum", "org.apache.kafka.tools.MetadataQuorumCommand"),
        Map.entry("kafka-producer-perf-test", "org.apache.kafka.tools.ProducerPerformance"),
        Map.entry("kafka-reassign-partitions", "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"),
        Map.entry("kafka-share-groups", "org.apache.kafka.tools.consumer.group.ShareGroupCommand"),
        Map.entry("kafka-streams-groups", "org.apache.kafka.tools.streams.StreamsGroupCommand"),
        Map.entry("kafka-topics", "org.apache.kafka.tools.TopicCommand"),
        Map.entry("kafka-transactions", "org.apache.kafka.tools.TransactionsCommand"),
        Map.entry("kafka-verifiable-consumer", "org.apache.kafka.tools.VerifiableConsumer"),
        Map.entry("kafka-verifiable-producer", "org.apache.kafka.tools.VerifiableProducer"),
        Map.entry("admin-methods", "AdminMethods"));

    /** These end the JVM in a way that can't be caught here: each run gets its own. */
    private static final Set<String> IN_OWN_JVM = Set.of("kafka-verifiable-consumer", "kafka-verifiable-producer");

    private static final PrintStream STDOUT = System.out;

    private final String bootstrap;
    private final Path folder;
    private final List<Member> members = new ArrayList<>();

    public static void main(String[] args) {
        ConsoleTools tools = new ConsoleTools(args[0], Path.of(args[2]));
        int code = 1;
        try {
            tools.runAll(Files.readAllLines(Path.of(args[1])));
            code = 0;
        } catch (Exception e) {
            e.printStackTrace();
        }
        STDOUT.flush();
        // Threads that a tool left behind are not waited for.
        Runtime.getRuntime().halt(code);
    }

    private ConsoleTools(String bootstrap, Path folder) {
        this.bootstrap = bootstrap;
        this.folder = folder;
    }

    private void runAll(List<String> lines) throws Exception {
        for (int i = 0; i < lines.size(); ) {
            String command = lines.get(i++).strip();
            if (command.isEmpty() || command.startsWith("#")) continue;
            StringBuilder input = new StringBuilder();
            while (i < lines.size() && lines.get(i).startsWith("| ")) {
                input.append(lines.get(i++).substring(2).replace("\\t", "\t")).append('\n');
            }
            run(command, input.toString());
        }
        leave();
    }

    private void run(String command, String input) throws Exception {
        STDOUT.println("$ " + command);
        long began = System.nanoTime();
        List<String> words = new ArrayList<>();
        for (Matcher word = WORD.matcher(command); word.find(); ) {
            String text = word.group(1) != null ? word.group(1) : word.group(2);
            words.add(text.replace("$dir", folder.toString()));
        }
        String tool = words.remove(0);
        switch (tool) {
            case "file" -> Files.writeString(folder.resolve(words.get(0)), input);
            case "join" -> members.add(Member.join(bootstrap, words.get(0), words.get(1), members.size()));
            case "leave" -> leave();
            case "settle" -> Thread.sleep(500);
            default -> runTool(tool, words, input);
        }
        if (Boolean.getBoolean("times")) System.err.printf("%5d ms  %s%n", (System.nanoTime() - began) / 1_000_000, command);
    }

    private void leave() throws InterruptedException {
        for (Member member : members) member.leave();
        members.clear();
    }

    private void runTool(String tool, List<String> words, String input) throws Exception {
        if (!TOOLS.containsKey(tool)) throw new IllegalArgumentException("no such tool: " + tool);
        // Most tools take it among their options; in kafka-cluster it belongs to the subcommand.
        words.addAll(tool.equals("kafka-cluster") ? 1 : 0, List.of("--bootstrap-server", bootstrap));

        if (IN_OWN_JVM.contains(tool)) {
            runProcess(TOOLS.get(tool), words);
        } else {
            runHere(TOOLS.get(tool), words, input);
        }
    }

    private static void runProcess(String tool, List<String> words) throws Exception {
        List<String> command = new ArrayList<>(List.of(System.getProperty("java.home") + "/bin/java"));
        command.addAll(ManagementFactory.getRuntimeMXBean().getInputArguments());
        command.addAll(List.of("-cp", System.getProperty("java.class.path"), tool));
        command.addAll(words);
        Path said = Files.createTempFile("said", null);
        try {
            Process process = new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(said.toFile()).start();
            boolean ended = process.waitFor(LIMIT_MS, TimeUnit.MILLISECONDS);
            process.destroyForcibly();
            print(Files.readString(said), ended ? process.exitValue() : null);
        } finally {
            Files.delete(said);
        }
    }

    private static void runHere(String tool, List<String> words, String input) throws Exception {
        ByteArrayOutputStream said = new ByteArrayOutputStream();
        PrintStream output = new PrintStream(said, true, StandardCharsets.UTF_8);
        InputStream stdin = System.in;
        PrintStream stderr = System.err;
        System.setIn(new ByteArrayInputStream(input.getBytes(StandardCharsets.UTF_8)));
        System.setOut(output);
        System.setErr(output);
        CompletableFuture<Integer> exit = new CompletableFuture<>();
        Exit.Procedure exiting = (code, message) -> {
            exit.complete(code);
            // As an exit does, this never returns. The thread stays parked until the JVM ends.
            for (;;) LockSupport.park();
        };
        Exit.setExitProcedure(exiting);
        Exit.setHaltProcedure(exiting);
        Queue<Runnable> hooks = new ConcurrentLinkedQueue<>();
        Exit.setShutdownHookAdder((name, hook) -> hooks.add(hook));
        Thread thread = new Thread(() -> {
            call(tool, words, output);
            exit.complete(0);
        });
        thread.setDaemon(true);
        thread.start();
        Integer code = exit.completeOnTimeout(null, LIMIT_MS, TimeUnit.MILLISECONDS).get();
        for (Runnable hook : hooks) {
            Thread ending = new Thread(hook);
            ending.setDaemon(true);
            ending.start();
            ending.join(LIMIT_MS);
        }
        System.setIn(stdin);
        System.setOut(STDOUT);
        System.setErr(stderr);

        print(said.toString(StandardCharsets.UTF_8), code);
    }

    private static void print(String text, Integer code) {
        STDOUT.print(text);
        if (!text.isEmpty() && !text.endsWith("\n")) STDOUT.println();
        if (code == null) {
            STDOUT.println("(still running after " + LIMIT_MS + " ms)");
        } else if (code != 0) {
            STDOUT.println("(exit " + code + ")");
        }
    }

    private static void call(String tool, List<String> words, PrintStream output) {
        try {
            Class.forName(tool).getMethod("main", String[].class)
                .invoke(null, (Object) words.toArray(new String[0]));
        } catch (InvocationTargetException e) {
            e.getCause().printStackTrace(output);
        } catch (ReflectiveOperationException e) {
            e.printStackTrace(output);
        }
    }
}
