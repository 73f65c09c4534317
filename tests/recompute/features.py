"""The config of a model topic, and what each of its features may be for a record: a text, some numbers, or a range of numbers, which
is one number where it has to be exact."""

import datetime
import functools
import json
import math
import re

from windows import Ever, Hopping, Latest, Refused, Session, Wants

UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
OPS = {
    "log": math.log, "log1p": math.log1p, "log10": math.log10, "sqrt": math.sqrt, "exp": math.exp, "abs": abs,
    "square": lambda x: x * x, "sign": lambda x: (x > 0) - (x < 0),
}
ABSENT = object()


def milliseconds(text):
    found = re.fullmatch(r"\s*(\d+)\s*(ms|s|m|h|d)\s*", text)
    if not found:
        raise Refused(f"{text!r} is no time")
    return int(found[1]) * UNITS[found[2]]


@functools.cache
def path_of(text):
    """The steps of a path such as `$.items[0].price`."""
    steps = re.findall(r"\.([^.\[\]]+)|\[(\d+)\]", text.removeprefix("$"))
    return tuple(name if name else int(index) for name, index in steps)


def at(record, path):
    for step in path:
        if isinstance(step, str):
            if not isinstance(record, dict) or step not in record:
                return None
        elif not isinstance(record, list) or step >= len(record):
            return None
        record = record[step]
    return record


def key_text(field):
    if isinstance(field, bool):
        return "true" if field else "false"
    if isinstance(field, (str, int)):
        return str(field)
    raise Refused(f"{field!r} is no key")


def event_time(spec, record, timestamp):
    if spec is None:
        return timestamp
    field = at(record, path_of(spec["field"]))
    match spec["format"]:
        case "unix_ms":
            return int(field)
        case "unix_s":
            return math.floor(field * 1000)
        case "unix_us":
            return int(field) // 1000
        case "rfc3339":
            moment = datetime.datetime.fromisoformat(field)
            since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
            return since // datetime.timedelta(milliseconds=1)
    raise Refused(f"event times as {spec['format']!r}")


def text_hash(text):
    """FNV-1a (64 bits), then the finalizer of MurmurHash3."""
    mask = (1 << 64) - 1
    found = 0xCBF29CE484222325
    for byte in text.encode():
        found = ((found ^ byte) * 0x100000001B3) & mask
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        found = ((found ^ (found >> 33)) * factor) & mask
    return found ^ (found >> 33)


def number_of(field, cast):
    """A field as a number."""
    if cast == "bool":
        if isinstance(field, str):
            return {"true": 1.0, "false": 0.0}[field]
        return 1.0 if field else 0.0
    if isinstance(field, str) and cast == "number" and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", field):
        return float(field)
    if not isinstance(field, (bool, int, float)):
        raise Refused(f"a number is needed, not {field!r}")
    return float(field)


def text_of(field, cast):
    if isinstance(field, str):
        return field
    if cast == "text" and isinstance(field, (bool, int, float)):
        return json.dumps(field)
    raise Refused(f"a text is needed, not {field!r}")


def near(value, relative, absolute=0.0):
    slack = abs(value) * relative + absolute
    return value - slack, value + slack


def around(low, high, relative):
    """A range whose ends may each be off."""
    return low - abs(low) * relative, high + abs(high) * relative


class Feature:
    def __init__(self, spec, panes, ttl):
        if "lookup" in spec:
            raise Refused(f"{spec['name']}: what tables say is not recomputed")
        self.name = spec["name"]
        self.path = path_of(spec["path"]) if "path" in spec else None
        self.cast, self.op = spec.get("cast"), spec.get("op")
        self.one_hot, self.hash = spec.get("one_hot"), spec.get("hash")
        scale = spec.get("scale")
        self.shift, self.divisor = 0.0, 1.0
        if scale:
            self.shift = scale.get("mean", scale.get("min", 0.0))
            self.divisor = scale["max"] - scale["min"] if "max" in scale else scale.get("std", 1.0)
        self.is_plain = not self.op and not scale
        self.aggregate = spec.get("agg")
        self.default = spec.get("default", 0 if self.aggregate else ABSENT)
        if self.aggregate:
            self.q = None
            if found := re.fullmatch(r"quantile\(\s*([0-9.]+)\s*\)", self.aggregate):
                self.aggregate, self.q = "quantile", float(found[1])
            if self.cast or self.one_hot or self.hash:
                raise Refused(f"{self.name}: of an aggregate only numbers are made")
            window = spec.get("window")
            self.pane = panes.setdefault((self.path, json.dumps(window, sort_keys=True)), Pane(self.path, window, ttl))
            self.pane.wants.add(self.aggregate)

    def expected(self, record, time):
        """A text, a list of numbers, or the lowest and the highest number that it may be."""
        if self.aggregate:
            return self.transformed(*self.of_pane(time))
        field = at(record, self.path)
        if field is None:
            if self.default is ABSENT:
                raise Refused(f"{self.name}: there is no {self.path}")
            field = self.default
        if self.one_hot or self.hash:
            text = text_of(field, self.cast)
            if self.one_hot:
                return [1.0 if text == known else 0.0 for known in self.one_hot]
            bucket = text_hash(text) % self.hash
            return [1.0 if bucket == n else 0.0 for n in range(self.hash)]
        if self.cast == "text":
            return text_of(field, "text")
        number = number_of(field, self.cast)
        return self.transformed(number, number)

    def of_pane(self, time):
        sums, bag, before, seconds = self.pane.view
        count = sums[0]
        default = (self.default, self.default)
        match self.aggregate:
            case "count":
                return count, count
            case "rate":
                return near(count / seconds, 1e-12) if count and seconds else (0.0, 0.0)
            case "distinct":
                different = len(bag.counts)
                return (different, different) if different < 30 else near(different, 5 * 0.016)
            case "sum":
                return self.of_sum(sums) if count else (0.0, 0.0)
            case "last":
                return (before[1], before[1]) if before else default
            case "delta" if before and self.pane.value is not None:
                return near(self.pane.value - before[1], 1e-9)
            case "time_since_last" if before:
                return near(max(time - before[0], 0) / 1000, 1e-12)
            case "mean" if count:
                low, high = self.of_sum(sums)
                return low / count, high / count
            case "min" if count:
                return sums[3], sums[3]
            case "max" if count:
                return sums[4], sums[4]
            case "std" if count:
                mean = sums[1] / count
                # What is left where squares cancel each other out.
                return near(math.sqrt(max(sums[2] / count - mean * mean, 0)), 1e-9, 1e-6 * math.sqrt(sums[2] / count))
            case "quantile" if count:
                rank = self.q * (count - 1)
                return around(bag.ordered[math.floor(rank)], bag.ordered[math.ceil(rank)], 0.01 + 1e-9)
        return default

    @staticmethod
    def of_sum(sums):
        return near(sums[1], 1e-9, 1e-14 * math.sqrt(sums[0] * sums[2]))

    def transformed(self, low, high):
        if self.is_plain:
            return low, high
        if self.op:
            numbers = [OPS[self.op](low), OPS[self.op](high)] + ([OPS[self.op](0)] if low < 0 < high else [])
            low, high = around(min(numbers), max(numbers), 1e-12)
        slack = 1e-12 * max(abs(low), abs(high), abs(self.shift))
        return (low - slack - self.shift) / self.divisor, (high + slack - self.shift) / self.divisor


class Pane:
    """A window of a field, or of records, which features share."""

    def __init__(self, path, window, ttl):
        self.path, self.wants = path, Wants()
        self.value = self.view = None
        window = {name: milliseconds(value) if isinstance(value, str) else value for name, value in (window or {}).items()}
        grace = window.get("grace", 0)
        if "tumbling" in window:
            self.window = Hopping(self.wants, window["tumbling"], window["tumbling"], grace)
        elif "sliding" in window:
            self.window = Hopping(self.wants, window["sliding"], window.get("slice", window["sliding"] // 10), grace)
        elif "session" in window:
            self.window = Session(self.wants, window["session"], grace)
        elif "last" in window:
            self.window = Latest(self.wants, window["last"], ttl)
        else:
            self.window = Ever(self.wants, ttl)

    def see(self, key, record, time, clock):
        value = True if self.path is None else at(record, self.path)
        if self.wants.numbers:
            if self.wants.different and isinstance(value, int) and float(value) != value:
                raise Refused(f"{value} is no double, and is both added up and told apart at {self.path}")
            value = None if value is None else number_of(value, None)
        elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            value = float(value)
        elif self.wants.different and isinstance(value, (list, dict)):
            raise Refused(f"what is counted as different at {self.path} has parts")
        self.value = value
        self.view = self.window.see(key, time, value, clock)
