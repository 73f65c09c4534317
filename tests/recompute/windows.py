"""What is remembered of keys: the records of windows, kept in the plainest way that is fast enough.

Each kind of window has `see(key, time, value, clock)`: it takes in a record's value (none where that is None) and gives a
`View` of what the window holds for that record. Times are milliseconds. Whatever a run could not be held to because it depends
on which partition was read first is refused: late records above all.
"""

import bisect
import collections


class Refused(Exception):
    """The inputs alone do not say what the outputs have to be, or the config has something that is not recomputed."""


class Clock:
    """Stream time as far as one source of records knows it: its highest event time. With several sources the task's own is their
    minimum, which is at most this: what is in time by this clock is in time."""

    def __init__(self, exact):
        self.exact = exact
        self.before = -(1 << 62)
        self.now = self.before

    def advance(self, time):
        self.before = self.now
        self.now = max(self.now, time)


class Wants:
    """What a window's features need of it."""

    def __init__(self):
        self.numbers = self.sums = self.different = self.ordered = self.before = False

    @property
    def bag(self):
        return self.different or self.ordered

    def add(self, aggregate):
        self.sums |= aggregate in ("sum", "mean", "min", "max", "std")
        self.different |= aggregate == "distinct"
        self.ordered |= aggregate == "quantile"
        self.before |= aggregate in ("last", "delta", "time_since_last")
        self.numbers |= aggregate not in ("count", "rate", "distinct", "time_since_last")


# `before` is time and value of the latest record before this one; `seconds` what a rate is per.
View = collections.namedtuple("View", "sums bag before seconds")


def no_sums():
    """Count, sum, sum of squares, least, greatest."""
    return [0, 0.0, 0.0, float("inf"), float("-inf")]


def add_value(sums, value, wants):
    sums[0] += 1
    if wants.sums:
        sums[1] += value
        sums[2] += value * value
        sums[3] = min(sums[3], value)
        sums[4] = max(sums[4], value)


def add_sums(sums, other):
    sums[0] += other[0]
    sums[1] += other[1]
    sums[2] += other[2]
    sums[3] = min(sums[3], other[3])
    sums[4] = max(sums[4], other[4])


class Bag:
    """Values that come and go: how often there is which, and all of them in order."""

    __slots__ = ("counts", "ordered")

    def __init__(self, wants):
        self.counts = {} if wants.different else None
        self.ordered = [] if wants.ordered else None

    def add(self, values):
        for value in values:
            if self.counts is not None:
                self.counts[value] = self.counts.get(value, 0) + 1
            if self.ordered is not None:
                bisect.insort(self.ordered, value)

    def remove(self, values):
        for value in values:
            if self.counts is not None:
                self.counts[value] -= 1
                if self.counts[value] == 0:
                    del self.counts[value]
            if self.ordered is not None:
                del self.ordered[bisect.bisect_left(self.ordered, value)]


def later(one, other):
    """Of two records, the later by event time; the second where that is the same."""
    return other if one is None or (other is not None and other[0] >= one[0]) else one


class Slice:
    __slots__ = ("sums", "values", "latest")

    def __init__(self):
        self.sums, self.values, self.latest = no_sums(), [], None


class Hopping:
    """`sliding`, and `tumbling`, which is sliding by its whole size."""

    def __init__(self, wants, size, slice_, grace):
        self.wants, self.size, self.slice, self.grace = wants, size, slice_, grace
        if size % slice_:
            raise Refused(f"a window of {size} ms has no whole slices of {slice_} ms")
        self.slices = size // slice_
        self.keys = {}

    def see(self, key, time, value, clock):
        number = time // self.slice
        if (number + 1) * self.slice + self.grace <= clock.now:
            raise Refused(f"a record of {key!r} at {time} may be late: its window is closed at {clock.now}")
        held = self.keys.get(key)
        if held is None:
            # Slices by number; a bag of the window that ends with the slice of that number.
            held = self.keys[key] = [{}, Bag(self.wants), number]
        slices, bag, bag_ends = held
        first = number - self.slices
        before = None
        if self.wants.before:
            for at, one in slices.items():
                if first < at <= number:
                    before = later(before, one.latest)
        if self.wants.bag:
            if number > bag_ends:
                self.advance(slices, bag, bag_ends, number)
                held[2] = bag_ends = number
        if value is not None:
            one = slices.get(number)
            if one is None:
                for at in [at for at in slices if at * self.slice + self.size + self.grace <= clock.now]:
                    if self.wants.bag and at > bag_ends - self.slices:
                        bag.remove(slices[at].values)
                    del slices[at]
                one = slices[number] = Slice()
            add_value(one.sums, value, self.wants)
            one.latest = later(one.latest, (time, value))
            if self.wants.bag:
                one.values.append(value)
                if number > bag_ends - self.slices:
                    bag.add((value,))
        sums = no_sums()
        for at, one in slices.items():
            if first < at <= number:
                add_sums(sums, one.sums)
        if self.wants.bag and number < bag_ends:
            bag = Bag(self.wants)
            for at, one in slices.items():
                if first < at <= number:
                    bag.add(one.values)
        return View(sums, bag, before, self.size / 1000)

    def advance(self, slices, bag, old, new):
        """Moves the bag's window on."""
        for at, one in slices.items():
            if old - self.slices < at <= min(old, new - self.slices):
                bag.remove(one.values)
            elif max(old, new - self.slices) < at <= new:
                bag.add(one.values)


class Session:
    """`session`: records that follow one another within a gap."""

    def __init__(self, wants, gap, grace):
        self.wants, self.gap, self.grace = wants, gap, grace
        self.keys = {}

    def see(self, key, time, value, clock):
        kept, joined = [], []
        if not clock.exact and time + self.gap + self.grace < clock.now:
            raise Refused(f"a record of {key!r} at {time} may be late: it is {clock.now}")
        for session in self.keys.get(key, ()):
            start, end = session[0], session[1]
            if end < time - self.gap or start > time + self.gap:
                # No record that is in time reaches further back.
                if end >= clock.now - 2 * self.gap - self.grace:
                    kept.append(session)
            elif end > clock.before - self.gap - self.grace:
                joined.append(session)
            elif not clock.exact:
                raise Refused(f"a session of {key!r} that ended at {end} may be over for its record at {time}")
        start = min([time] + [session[0] for session in joined])
        end = max([time] + [session[1] for session in joined])
        if end + self.gap + self.grace < clock.now:
            raise Refused(f"a record of {key!r} at {time} may be late: its session is closed at {clock.now}")
        if value is None and len(joined) < 2:
            # It neither makes nor prolongs one.
            merged = joined[0] if joined else [time, time, no_sums(), Bag(self.wants), None]
            return self.view(merged, merged[4])
        merged = [start, end, no_sums(), Bag(self.wants), None]
        before = None
        for session in joined:
            add_sums(merged[2], session[2])
            bag = session[3]
            if merged[3].ordered is not None:
                merged[3].ordered = sorted(merged[3].ordered + bag.ordered) if merged[3].ordered else bag.ordered[:]
            for counted, times in (bag.counts or {}).items():
                merged[3].counts[counted] = merged[3].counts.get(counted, 0) + times
            before = merged[4] = later(merged[4], session[4])
        if value is None:
            # Two sessions within its reach stay two.
            merged[0], merged[1] = min(s[0] for s in joined), max(s[1] for s in joined)
            return self.view(merged, before)
        add_value(merged[2], value, self.wants)
        merged[3].add((value,))
        merged[4] = later(merged[4], (time, value))
        self.keys[key] = kept + [merged]
        return self.view(merged, before)

    @staticmethod
    def view(session, before):
        return View(session[2], session[3], before, (session[1] - session[0]) / 1000)


def forgets(last, ttl, clock, key):
    """Whether what a key's last record was at `last` is forgotten."""
    if last + ttl > clock.now:
        return False
    if not clock.exact:
        raise Refused(f"{key!r} may be forgotten: its last record is of {last}, and it is {clock.now}")
    return True


class Latest:
    """`last = N`: the last records by arrival."""

    def __init__(self, wants, records, ttl):
        self.wants, self.records, self.ttl = wants, records, ttl
        self.keys = {}

    def see(self, key, time, value, clock):
        held = self.keys.get(key)
        if held is None or forgets(held[1], self.ttl, clock, key):
            held = [collections.deque(), time]
        found = held[0]
        if value is not None and len(found) == self.records:
            found.popleft()
        before = None
        for record in found:
            before = later(before, record)
        if value is not None:
            found.append((time, value))
            held[1] = max(held[1], time)
            self.keys[key] = held
        sums, bag = no_sums(), Bag(self.wants)
        for _, one in found:
            add_value(sums, one, self.wants)
            bag.add((one,))
        times = [at for at, _ in found]
        return View(sums, bag, before, (max(times) - min(times)) / 1000 if times else 0)


class Ever:
    """No window: all records of a key that is not forgotten."""

    def __init__(self, wants, ttl):
        self.wants, self.ttl = wants, ttl
        self.keys = {}

    def see(self, key, time, value, clock):
        held = self.keys.get(key)
        if held is None or forgets(held[3], self.ttl, clock, key):
            held = [no_sums(), Bag(self.wants), None, time]
        sums, bag, before, last = held
        if value is not None:
            add_value(sums, value, self.wants)
            bag.add((value,))
            held[2] = later(before, (time, value))
            held[3] = max(last, time)
            self.keys[key] = held
        return View(sums, bag, before, None)
