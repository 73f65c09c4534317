import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/**
 * Streams that go where windows begin, end and close; the same seed makes the same stream everywhere.
 *
 * <p>Values are multiples of 1/4, so that sums are exact in any order.
 */
final class Streams {
    private static final long BEGIN_MS = 1_700_000_000_123L;

    /**
     * How many of the records are of each sort: one somewhat later than all before; one of the same time as an earlier one; ten
     * within a few ms; one after a long pause; one out of order; one on a bound of a window, or a session's gap away from an
     * earlier one, or 1 ms beside; one that moves the time to where the window of an earlier one closes, or 1 ms beside, and
     * one more for that window, or one where a session closes at this time, and one more for it; one far later than any grace;
     * one without a key or a value.
     */
    record Mix(int later, int tie, int burst, int pause, int unordered, int bound, int edge, int far, int none) {
        int pick(Random random) {
            int[] weights = {later, tie, burst, pause, unordered, bound, edge, far, none};
            int at = random.nextInt(IntStream.of(weights).sum());
            int sort = 0;
            while (at >= weights[sort]) at -= weights[sort++];
            return sort;
        }
    }

    /** A stream: how many keys, the longest step ahead and back in ms, and the windows that it goes to the edges of. */
    record Kind(String name, int keys, int ahead_ms, int back_ms, Mix mix, List<Windows.Window> windows) {
        Kind(String name, int keys, int ahead_ms, int back_ms, Mix mix, String... windows) {
            this(name, keys, ahead_ms, back_ms, mix, Stream.of(windows).map(Windows.Window::parse).toList());
        }
    }

    static final List<Kind> KINDS = List.of(
        new Kind("few_keys", 2, 8_000, 15_000, new Mix(60, 10, 3, 2, 20, 5, 0, 0, 0),
            "tumbling:size=60000,grace=10000", "hopping:size=60000,advance=20000,grace=0",
            "session:gap=5000,grace=10000"),
        new Kind("many_keys", 40, 1_000, 60_000, new Mix(50, 5, 2, 1, 40, 5, 5, 2, 0),
            "tumbling:size=30000,grace=0", "hopping:size=60000,advance=30000,grace=20000",
            "session:gap=20000,grace=15000"),
        new Kind("edges", 4, 3_000, 5_000, new Mix(20, 10, 0, 1, 10, 30, 40, 1, 0),
            "tumbling:size=10000,grace=3000", "hopping:size=14000,advance=7000,grace=1000",
            "session:gap=4000,grace=2000", "session:gap=3000,grace=0"),
        new Kind("bursts", 12, 150, 1_000, new Mix(20, 10, 12, 8, 15, 10, 5, 2, 0),
            "tumbling:size=1000,grace=500", "hopping:size=2000,advance=500,grace=1000",
            "session:gap=300,grace=100"),
        new Kind("late", 6, 2_000, 20_000, new Mix(40, 5, 1, 1, 40, 5, 20, 15, 0),
            "tumbling:size=5000,grace=0", "tumbling:size=5000,grace=3600000", "hopping:size=10000,advance=5000,grace=5000",
            "session:gap=3000,grace=0"),
        new Kind("sessions", 3, 4_000, 12_000, new Mix(25, 5, 1, 2, 30, 35, 30, 1, 0),
            "session:gap=5000,grace=0", "session:gap=5000,grace=10000", "session:gap=1000,grace=2000",
            "session:gap=5000,grace=0,retention=60000", "session:gap=1000,grace=2000,retention=30000"),
        new Kind("nulls", 3, 4_000, 6_000, new Mix(30, 5, 1, 1, 20, 10, 10, 2, 30),
            "tumbling:size=10000,grace=2000", "hopping:size=20000,advance=10000,grace=0",
            "session:gap=2000,grace=1000"));

    private final Kind kind;
    private final Random random;
    private final List<Windows.Input> records = new ArrayList<>();
    private long time = BEGIN_MS;

    Streams(Kind kind, long seed) {
        this.kind = kind;
        this.random = new Random(seed * 31 + kind.name().hashCode());
    }

    List<Windows.Input> records(int count) {
        add(key(), time);
        while (records.size() < count) {
            switch (kind.mix().pick(random)) {
                case 0 -> add(key(), time + random.nextInt(kind.ahead_ms()));
                case 1 -> add(random.nextBoolean() ? key() : recent().key(), recent().timestamp_ms());
                case 2 -> {
                    String key = key();
                    for (int i = 0; i < 10; i++) add(random.nextInt(4) == 0 ? key() : key, time + random.nextInt(5) - 2);
                }
                case 3 -> add(key(), time + 50L * kind.ahead_ms() + random.nextInt(3_600_000));
                case 4 -> add(key(), time - random.nextInt(kind.back_ms()));
                case 5 -> bound(window());
                case 6 -> edge(window());
                case 7 -> add(key(), time - (random.nextBoolean() ? 86_400_000L * (1 + random.nextInt(30)) : 20L * kind.back_ms()));
                default -> records.add(random.nextBoolean()
                    ? new Windows.Input(null, time + random.nextInt(kind.ahead_ms()) - kind.ahead_ms() / 2, value())
                    : new Windows.Input(key(), move(time + random.nextInt(kind.ahead_ms()) - kind.ahead_ms() / 2), null));
            }
        }
        return records.subList(0, count);
    }

    private void bound(Windows.Window window) {
        if (window.session()) {
            Windows.Input near = recent();
            long gap = random.nextBoolean() ? window.ms("gap") : -window.ms("gap");
            add(near.key(), near.timestamp_ms() + gap + beside());
        } else {
            long advance = window.ms(window.kind().equals("hopping") ? "advance" : "size");
            add(key(), (time / advance + random.nextInt(4) - 2) * advance + beside());
        }
    }

    private void edge(Windows.Window window) {
        if (window.session() && random.nextBoolean()) {
            // Where a session closes now, and what may join it.
            String key = key();
            long at = time - window.ms("gap") - window.ms("grace") + beside();
            add(key, at);
            switch (random.nextInt(4)) {
                case 0 -> add(key, at + beside());
                case 1 -> add(key, at + window.ms("gap") + beside());
                case 2 -> add(key, at + 1 + random.nextInt((int) window.ms("gap")));
                default -> { }
            }
            return;
        }
        Windows.Input near = recent();
        long close;
        if (window.session()) {
            close = near.timestamp_ms() + window.ms("gap") + window.ms("grace");
        } else {
            long advance = window.ms(window.kind().equals("hopping") ? "advance" : "size");
            long first = (near.timestamp_ms() - window.ms("size") + advance) / advance * advance;
            close = first + random.nextInt((int) (window.ms("size") / advance)) * advance + window.ms("size") + window.ms("grace");
        }
        // Of no use once it is past, and too far where the grace is long.
        if (close + 1 < time || close > time + 20L * kind.ahead_ms()) {
            add(near.key(), near.timestamp_ms());
            return;
        }
        add(key(), close + beside());
        long off = window.session() && random.nextInt(3) > 0 ? window.ms("gap") + beside() : 0;
        add(near.key(), near.timestamp_ms() + off);
        if (random.nextBoolean()) add(near.key(), near.timestamp_ms() + beside());
    }

    private void add(String key, long at) {
        records.add(new Windows.Input(key, move(at), value()));
    }

    private long move(long at) {
        time = Math.max(time, at);
        return at;
    }

    private Windows.Window window() {
        return kind.windows().get(random.nextInt(kind.windows().size()));
    }

    /** One of the last twenty, so that its windows may be open still. */
    private Windows.Input recent() {
        Windows.Input one = records.get(records.size() - 1 - random.nextInt(Math.min(20, records.size())));
        return one.key() == null ? new Windows.Input(key(), one.timestamp_ms(), one.value()) : one;
    }

    private int beside() {
        return random.nextInt(3) - 1;
    }

    private String key() {
        int at = random.nextInt(kind.keys());
        return at == 0 ? "klíč" : "k" + at;
    }

    private Double value() {
        return (random.nextInt(801) - 400) / 4.0;
    }
}
