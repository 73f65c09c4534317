import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.Reader;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Deque;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Predicate;

/**
 * A child JVM that runs a main and says lines; it can be killed at any moment, and ends by itself with its parent.
 *
 * <p>A line that a kill cut short is not handed on: "committed 1" must not be taken for the beginning of "committed 17".
 */
final class Child {
    private static final Set<Child> RUNNING = ConcurrentHashMap.newKeySet();
    private static final CountDownLatch STOP = new CountDownLatch(1);

    private final String name;
    private final Process process;
    private final Thread reader;
    private final Deque<String> last = new ArrayDeque<>();
    private int lines;
    private int awaited;
    private boolean ended;

    /** Starts it. {@code said} is given each line, on a thread of the child's own. */
    static Child start(Support.Options options, String name, Consumer<String> said, Class<?> main, String... args)
            throws IOException {
        List<String> command = new ArrayList<>(List.of(System.getProperty("java.home") + "/bin/java"));
        command.addAll(ManagementFactory.getRuntimeMXBean().getInputArguments());
        // A killed JVM leaves the libraries that it has unpacked.
        command.add("-Djava.io.tmpdir=" + options.folder());
        command.addAll(List.of("-cp", System.getProperty("java.class.path"), Child.class.getName(), main.getName()));
        command.addAll(List.of(args));
        return new Child(name, new ProcessBuilder(command).redirectErrorStream(true).start(), said);
    }

    private Child(String name, Process process, Consumer<String> said) {
        this.name = name;
        this.process = process;
        RUNNING.add(this);
        reader = Support.daemon(name, () -> {
            try (Reader output = new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
                StringBuilder line = new StringBuilder();
                for (int c = output.read(); c >= 0; c = output.read()) {
                    if (c != '\n') {
                        line.append((char) c);
                    } else {
                        said.accept(line.toString());
                        remember(line.toString());
                        line.setLength(0);
                    }
                }
            } finally {
                synchronized (this) {
                    ended = true;
                    notifyAll();
                }
            }
            return null;
        });
    }

    private synchronized void remember(String line) {
        lines++;
        last.addLast(line);
        if (last.size() > 1000) last.removeFirst();
        notifyAll();
    }

    /** Waits for a line like this, after the one that was last waited for. */
    synchronized String await(String what, Duration patience, Predicate<String> like) throws InterruptedException {
        long deadline = System.nanoTime() + patience.toNanos();
        for (;;) {
            while (awaited == lines) {
                long left = TimeUnit.NANOSECONDS.toMillis(deadline - System.nanoTime());
                if (ended || left <= 0) {
                    throw new Support.Broken(name + ": " + what + ": " + (ended ? "it ended" : "not within " + patience) + tail());
                }
                wait(left);
            }
            awaited = Math.max(awaited, lines - last.size());
            String line = last.stream().skip(last.size() - (lines - awaited++)).findFirst().orElseThrow();
            if (like.test(line)) return line;
        }
    }

    /** What it has said until now is not waited for any more. */
    synchronized void forget() {
        awaited = lines;
    }

    /** Kills it; all that it had said has been handed on then. */
    void kill() throws InterruptedException {
        boolean byItself = !process.isAlive();
        // Process.destroyForcibly would close the pipe, and lose what was said last.
        process.toHandle().destroyForcibly();
        process.waitFor();
        reader.join();
        RUNNING.remove(this);
        if (byItself) throw new Support.Broken(name + ": it ended with " + process.exitValue() + " before it was killed" + tail());
    }

    /** Asks it to stop. */
    void stop() throws IOException {
        try (OutputStream input = process.getOutputStream()) {
            input.write("stop\n".getBytes(StandardCharsets.UTF_8));
            input.flush();
        }
    }

    /** Waits for its end, which must be a good one. */
    void end(Duration patience) throws InterruptedException {
        if (!process.waitFor(patience.toMillis(), TimeUnit.MILLISECONDS)) {
            throw new Support.Broken(name + ": not ended within " + patience + tail());
        }
        reader.join();
        RUNNING.remove(this);
        if (process.exitValue() != 0) throw new Support.Broken(name + ": it ended with " + process.exitValue() + tail());
    }

    private synchronized String tail() {
        List<String> lines = new ArrayList<>(last);
        return lines.isEmpty() ? "" : "\n    " + String.join("\n    ", lines.subList(Math.max(0, lines.size() - 30), lines.size()));
    }

    static void killAll() {
        for (Child child : RUNNING) {
            child.process.destroyForcibly();
            try {
                child.process.waitFor(10, TimeUnit.SECONDS);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        }
    }

    // What follows runs in the child.

    public static void main(String[] args) throws Exception {
        Support.daemon("parent", () -> {
            BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
            if (input.readLine() == null) Runtime.getRuntime().halt(9);
            STOP.countDown();
            return null;
        });
        try {
            Class.forName(args[0]).getMethod("main", String[].class)
                .invoke(null, (Object) Arrays.copyOfRange(args, 1, args.length));
        } catch (Throwable e) {
            e.printStackTrace();
            Runtime.getRuntime().halt(1);
        }
        Runtime.getRuntime().halt(0);
    }

    /** In the child: whether the parent has asked it to stop. */
    static boolean isStopping() {
        return STOP.getCount() == 0;
    }

    /** In the child: returns once the parent has asked it to stop. */
    static void awaitStop() throws InterruptedException {
        STOP.await();
    }
}
