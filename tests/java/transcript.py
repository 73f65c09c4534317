"""What Kafka's console tools said, made comparable.

    transcript.py normalise < RAW > TRANSCRIPT
    transcript.py compare KAFKA MILENA KNOWN_DIFFERENCES

`normalise` takes out ids, times, addresses, folders and measured figures, and sorts what comes in no order.
`compare` fails on every difference that KNOWN_DIFFERENCES does not have, and on every one there that has gone.

A known difference is a reason ("# ..."), the command ("$ ..."), and the lines that only Kafka ("-...") or only Milena
("+...") prints; a line that begins with "-~" or "+~" is a regular expression for a whole line.
"""

import difflib
import json
import re
import sys

EVERYWHERE = [
    (r"\t?\s+at [\w.$/]+\(.*\)$|\s+\.\.\. \d+ more$", None),  # a stack trace's frames
    (r"^\s*$", None),
    # An error is compared by its class, which is its code; its words are each server's own.
    (r"(\b(?:[a-z]+\.)+\w+(?:Exception|Error)): (?!org\.).*", r"\1: WORDS"),
    (r"(Error while executing topic command :|Error completing leader election.*?:) (?!org\.).*", r"\1 WORDS"),
    (r"documentation=.*", "documentation=WORDS"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"127\.0\.0\.1:\d+", "SERVER"),
    (r"(TopicId: |Cluster ID: |ClusterId: +)[\w-]{22}", r"\1ID"),
    (r'("logDir":|"log_dirs":\[)"/[^"]*"', r'\1"DIR"'),
    (r"/tmp/[\w./-]+", "DIR"),
    (r"clientId=[\w-]+", "clientId=ID"),
    (r"(__consumer_offsets:\d+):\d+", r"\1:N"),
    (r"CreateTime:\d+", "CreateTime:TIME"),
    (r'"timestamp":\d+', '"timestamp":TIME'),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[:,.]\d+", "TIME"),
    (r" +", " "),
    (r" $", ""),
]
BY_COMMAND = {
    r"kafka-(producer|consumer)-perf-test|kafka-e2e-latency": [
        (r"^TIME, TIME, [\d.]+, [\d.]+, (\d+), .*", r"\1 records"),
        (r"\d+\.\d+|\d+ ms|= \d+", "N"),
    ],
    r"kafka-verifiable-producer": [(r'"avg_throughput":[\d.]+', '"avg_throughput":N')],
    r"kafka-cluster list-endpoints": [(r"127\.0\.0\.1 \d+", "SERVER")],
    r"kafka-features describe": [(r"Epoch: \d+", "Epoch: N")],
    r"kafka-metadata-quorum": [(r"(HighWatermark|LeaderEpoch): \d+", r"\1: N"), (r"\b\d{2,}\b", "N")],
    r"kafka-transactions describe-producers": [(r"\b\d{13}\b", "TIME"), (r"^\d+", "ID")],
}
# Listed in the order of a hash table.
UNORDERED = (
    r"--list\b|--all-groups|--all-topics|--export|--describe --entity-type topics$|--members"
    r"|kafka-get-offsets$|kafka-consumer-groups --(describe|reset-offsets|delete-offsets)|kafka-delete-records"
)


def partitions_in_order(line):
    """What kafka-log-dirs says, in the order of partitions; the internal topics are each broker's own."""
    try:
        said = json.loads(line)
    except ValueError:
        return line
    for broker in said["brokers"]:
        for folder in broker["logDirs"]:
            shown = [entry for entry in folder["partitions"] if not entry["partition"].startswith("__")]
            for entry in shown:
                entry["size"] = entry["size"] and "N"  # times are of varying length
            folder["partitions"] = sorted(shown, key=lambda entry: entry["partition"])
    return json.dumps(said)


def sections(lines):
    """Pairs of a command and what it printed."""
    result = []
    for line in lines:
        if line.startswith("$ "):
            result.append((line, []))
        else:
            result[-1][1].append(line)
    return result


def normalise_line(command, line):
    rules = EVERYWHERE + [rule for tool, rules in BY_COMMAND.items() if re.match(r"\$ (%s)" % tool, command) for rule in rules]
    for pattern, replacement in rules:
        if replacement is None:
            if re.search(pattern, line):
                return None
        else:
            line = re.sub(pattern, replacement, line)
    return partitions_in_order(line) if line.startswith('{"brokers":') else line


def normalise(lines):
    for command, said in sections(lines):
        said = [kept for line in said if (kept := normalise_line(command, line)) is not None]
        if re.search(UNORDERED, command):
            said.sort()
        yield command
        yield from said


def known_differences(lines):
    """By command: pairs of a sign and what matches the line."""
    known, command = {}, None
    for line in lines:
        if line.startswith("$ "):
            command = known.setdefault(line, [])
        elif line[:2] in ("-~", "+~"):
            command.append((line[0], re.compile(line[2:])))
        elif line[:1] in ("-", "+"):
            command.append((line[0], re.compile(re.escape(line[1:]))))
    return known


def compare(kafka, milena, known):
    kafka, milena = sections(kafka), sections(milena)
    if [command for command, _ in kafka] != [command for command, _ in milena]:
        print("the two transcripts are not of the same commands: record Kafka's again")
        return False
    good, seen, excused = True, set(), 0
    for (command, expected), (_, said) in zip(kafka, milena):
        unknown = []
        for line in list(difflib.unified_diff(expected, said, n=0, lineterm=""))[2:]:
            if line.startswith("@@"):
                continue
            entries = [entry for entry in known.get(command, []) if entry[0] == line[0] and entry[1].fullmatch(line[1:])]
            seen.update((command, entry) for entry in entries)
            if entries:
                excused += 1
            else:
                unknown.append(line)
        if unknown:
            good = False
            print("\n".join([command] + unknown))
    for command, entries in known.items():
        for entry in entries:
            if (command, entry) not in seen:
                good = False
                print(f"no longer a difference, {command}\n{entry[0]}{entry[1].pattern}")
    if good:
        print(f"{len(kafka)} commands, {sum(len(said) for _, said in milena)} lines; {excused} lines differ as known")
    return good


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()


if __name__ == "__main__":
    if sys.argv[1] == "normalise":
        for line in normalise(sys.stdin.read().splitlines()):
            print(line)
    else:
        _, _, kafka, milena, known = sys.argv
        sys.exit(not compare(read(kafka), read(milena), known_differences(read(known))))
