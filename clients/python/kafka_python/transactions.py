"""Writes in transactions, which are read as a whole or not at all, and prints how each ended.

    echo '{"records": [{"value": "a"}, {"value": "b"}], "commit": true}' | ./transactions write 127.0.0.1:9092 orders my-id
    ./transactions copy 127.0.0.1:9092 orders orders.copy my-group my-id

`write` makes a transaction of each line of stdin; one whose "commit" is false it aborts once its records are written.
Of "key", "value" and "partition" of a record all but "value" may be missing.

`copy` reads a topic in a consumer group and writes each value, in upper case, to another one. The copies and the position
behind what was read are one transaction, so each record is copied exactly once, whatever becomes of this process.

A transactional id belongs to one producer at a time. A new one of the same id ends what the one before has left open,
and shuts it out.
"""

import argparse
import json
import signal
import sys

from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError
from kafka.structs import OffsetAndMetadata

parser = argparse.ArgumentParser()
commands = parser.add_subparsers(dest="command", required=True)
writing = commands.add_parser("write")
copying = commands.add_parser("copy")
for command, names in ((writing, ["bootstrap", "topic", "id"]), (copying, ["bootstrap", "topic", "output", "group", "id"])):
    for name in names:
        command.add_argument(name)
copying.add_argument("--abort-every", type=int, metavar="N", help="abort each Nth transaction, and read its records again")
args = parser.parse_args()

producer = KafkaProducer(bootstrap_servers=args.bootstrap, transactional_id=args.id, linger_ms=5)

# The group has gone on without this member.
REBALANCED = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)


def data(text):
    return None if text is None else text.encode()


def commit():
    producer.commit_transaction()
    print(json.dumps({"transaction": "committed"}), flush=True)


def abort():
    producer.abort_transaction()
    print(json.dumps({"transaction": "aborted"}), flush=True)


def write():
    for line in sys.stdin:
        transaction = json.loads(line)
        producer.begin_transaction()
        for record in transaction["records"]:
            key, value = data(record.get("key")), data(record["value"])
            producer.send(args.topic, key=key, value=value, partition=record.get("partition"))
        producer.flush()
        if transaction["commit"]:
            commit()
        else:
            abort()


def copy():
    consumer = KafkaConsumer(
        args.topic,
        bootstrap_servers=args.bootstrap,
        group_id=args.group,
        auto_offset_reset="earliest",  # where the group has no position yet
        enable_auto_commit=False,  # positions are committed in the transactions
        isolation_level="read_committed",
        session_timeout_ms=6_000,  # a member that dies without leaving is missed after this
        heartbeat_interval_ms=2_000,
    )
    count = 0
    while running:
        batches = consumer.poll(timeout_ms=200, max_records=10)
        if not batches:
            continue
        count += 1
        producer.begin_transaction()
        for records in batches.values():
            for record in records:
                producer.send(args.output, key=record.key, value=record.value.upper())
        producer.flush()
        positions = {p: OffsetAndMetadata(records[-1].offset + 1, "", -1) for p, records in batches.items()}
        try:
            # With its own metadata a member that the group has gone on without can commit nothing.
            producer.send_offsets_to_transaction(positions, consumer.group_metadata())
            is_meant_to_end_well = not (args.abort_every and count % args.abort_every == 0)
        except REBALANCED:
            is_meant_to_end_well = False
        if is_meant_to_end_well:
            commit()
        else:
            abort()
            rewind(consumer)
    consumer.close()


def rewind(consumer):
    """Back to the last committed positions."""
    for partition in consumer.assignment():
        position = consumer.committed(partition)
        if position is None:
            consumer.seek_to_beginning(partition)
        else:
            consumer.seek(partition, position)


running = True


def stop(*_):
    global running
    running = False


if args.command == "copy":
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
producer.init_transactions()
if args.command == "write":
    write()
else:
    copy()
producer.close()
