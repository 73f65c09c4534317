#!/usr/bin/env python3
"""Recomputes every feature of a keyed model topic from its inputs, and holds the outputs to it.

    recompute.py --config milena.toml --model-topic NAME --inputs FOLDER --outputs FOLDER

It shares nothing with Milena but the meaning of the config. It holds to:

- there is one output for each input, by the headers that name its source, with the input's key, in the partition that Java's
  partitioner chooses for the state's key;
- the field of the output's template that is "$f" has every feature: texts and counts exactly, sums, means and deviations
  within 1e-9, distinct counts within five standard errors of 1.6 % (below 30 exactly), quantiles within 1 % of the value at
  their rank.

The inputs are one file for each partition, `TOPIC-PARTITION.tsv`, the outputs `PARTITION.tsv`. Columns are split by tabs: of inputs
offset, timestamp, key (as JSON) and value; of outputs the source's topic, partition and offset, key and value.

The order in which records of one key from different partitions are read is nobody's promise: such inputs are refused, as are those
with records that may come late. Ends with 0 where all holds, 1 where something differs, 2 where it can't say.
"""

import argparse
import collections
import json
import pathlib
import sys
import tomllib

from features import Feature, at, event_time, key_text, milliseconds, path_of
from windows import Clock, Refused

SHOWN = 10


def murmur2(data):
    """As Kafka's Java clients have it."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    found = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for start in range(0, whole, 4):
        k = (int.from_bytes(data[start:start + 4], "little") * m) & mask
        k ^= k >> 24
        found = ((found * m) & mask) ^ ((k * m) & mask)
    if rest := data[whole:]:
        found = ((found ^ int.from_bytes(rest, "little")) * m) & mask
    found ^= found >> 13
    found = (found * m) & mask
    return found ^ (found >> 15)


class Faults:
    def __init__(self):
        self.kinds = collections.Counter()

    def note(self, kind, text):
        self.kinds[kind] += 1
        if self.kinds[kind] <= SHOWN:
            print(f"{kind}: {text}")

    def end(self):
        for kind, times in self.kinds.items():
            if times > SHOWN:
                print(f"{kind}: {times} in all")
        return bool(self.kinds)


class ModelTopic:
    def __init__(self, config, name):
        specs = [spec for spec in config.get("model_topic", []) if spec["name"] == name]
        if not specs:
            raise Refused(f"the config has no model topic {name!r}")
        spec = specs[0]
        self.key = path_of(spec["key"]) if "key" in spec else None
        inputs = spec["input"]
        self.inputs = [inputs] if isinstance(inputs, str) else inputs
        topics = {topic["name"]: topic for topic in config.get("topic", [])}
        self.event_times = {topic: topics.get(topic, {}).get("event_time") for topic in self.inputs}
        ttl = milliseconds(spec.get("state", {}).get("ttl", "7d"))
        panes = {}
        self.features = [Feature(feature, panes, ttl) for feature in spec.get("feature", [])]
        self.panes = list(panes.values())
        template = spec.get("output", {}).get("template", {})
        self.field = next((field for field, value in template.items() if value == "$f"), None)
        if self.field is None:
            raise Refused('no field of the output\'s template is "$f"')


def read_outputs(folder, faults):
    """By topic and partition of the source, then by offset: partition, key and value of the output."""
    outputs = collections.defaultdict(dict)
    for file in sorted(folder.glob("*.tsv")):
        partition = int(file.stem)
        with file.open("rb") as lines:
            for line in lines:
                topic, source, offset, key, value = line.rstrip(b"\n").split(b"\t", 4)
                of_source = outputs[topic.decode(), int(source)]
                if int(offset) in of_source:
                    faults.note("doubled", f"{topic.decode()}-{int(source)}, offset {int(offset)} has two outputs")
                of_source[int(offset)] = (partition, key, value)
    return outputs


def read_inputs(folder, topics):
    for topic in topics:
        files = [file for file in folder.glob("*.tsv") if file.stem.rpartition("-")[0] == topic]
        for file in sorted(files):
            yield topic, int(file.stem.rpartition("-")[2]), file


def differs(expected, got):
    """Whether a feature is not what it may be."""
    if isinstance(expected, tuple):
        is_number = isinstance(got, (int, float)) and not isinstance(got, bool)
        return not (is_number and expected[0] <= got <= expected[1])
    return expected != got


def shown(expected):
    if isinstance(expected, tuple):
        return f"{expected[0]!r}" if expected[0] == expected[1] else f"from {expected[0]!r} to {expected[1]!r}"
    return repr(expected)


def check_partition(model_topic, topic, partition, lines, clock, outputs, partitions, homes, faults):
    """All records of one partition of an input, in order."""
    spec = model_topic.event_times[topic]
    home = (topic, partition)
    checked = 0
    for line in lines:
        offset, timestamp, key, value = line.rstrip(b"\n").split(b"\t", 3)
        offset = int(offset)
        record = json.loads(value)
        if model_topic.key is None:
            state_key, wanted = json.loads(key), partition
        else:
            state_key = key_text(at(record, model_topic.key))
        known = homes.get(state_key)
        if known is None:
            if model_topic.key is not None:
                wanted = (murmur2(state_key.encode()) & 0x7FFFFFFF) % partitions
            known = homes[state_key] = (home, wanted)
        if known[0] != home:
            raise Refused(f"records of {state_key!r} are in {known[0]} and {home}: nothing says which come first")
        time = event_time(spec, record, int(timestamp))
        clock.advance(time)
        for pane in model_topic.panes:
            pane.see(state_key, record, time, clock)
        place = f"{topic}-{partition}, offset {offset}, key {state_key!r}"
        output = outputs.pop(offset, None)
        if output is None:
            faults.note("missing", f"{place} has no output")
            continue
        if output[0] != known[1]:
            faults.note("misplaced", f"{place}: its output is in partition {output[0]}, not {known[1]}")
        if output[1] != key:
            faults.note("key", f"{place}: its output's key is {output[1]!r}, not {key!r}")
        found = json.loads(output[2]).get(model_topic.field)
        if not isinstance(found, dict) or len(found) != len(model_topic.features):
            faults.note("features", f"{place}: {found!r} is not {len(model_topic.features)} features")
            continue
        for feature in model_topic.features:
            expected = feature.expected(record, time)
            got = found.get(feature.name)
            if differs(expected, got):
                faults.note(feature.name, f"{place}, time {time}: it is {got!r}, and should be {shown(expected)}")
        checked += 1
    return checked


def run(config, name, input_folder, output_folder):
    """The exit code."""
    faults = Faults()
    with open(config, "rb") as file:
        model_topic = ModelTopic(tomllib.load(file), name)
    outputs = read_outputs(output_folder, faults)
    sources = list(read_inputs(input_folder, model_topic.inputs))
    partitions = 1 + max((partition for _, partition, _ in sources), default=0)
    # Without a key to be brought to, the records of a task are those of one partition.
    apart = model_topic.key is None and len(model_topic.inputs) == 1
    exact = apart or len(sources) == 1
    homes, checked = {}, 0
    for topic, partition, file in sources:
        if apart:
            # The same key in two partitions is two keys.
            homes.clear()
            for pane in model_topic.panes:
                pane.window.keys.clear()
        of_source = outputs[topic, partition]
        with file.open("rb") as lines:
            checked += check_partition(
                model_topic, topic, partition, lines, Clock(exact), of_source, partitions, homes, faults)
    for (topic, partition), rest in outputs.items():
        for offset in rest:
            faults.note("unasked", f"an output of {topic}-{partition}, offset {offset}, which is no input")
    if faults.end():
        return 1
    print(f"{checked} outputs have the {len(model_topic.features)} features that they should have")
    return 0


def main():
    parser = argparse.ArgumentParser(description="Recomputes the features of a model topic and holds its outputs to them.")
    parser.add_argument("--config", required=True)
    parser.add_argument("--model-topic", required=True)
    parser.add_argument("--inputs", required=True, type=pathlib.Path)
    parser.add_argument("--outputs", required=True, type=pathlib.Path)
    options = parser.parse_args()
    try:
        return run(options.config, options.model_topic, options.inputs, options.outputs)
    except Refused as refused:
        print(f"refused: {refused}")
        return 2


if __name__ == "__main__":
    sys.exit(main())
