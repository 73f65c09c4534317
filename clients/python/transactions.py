"""Writes in transactions, which are read as a whole or not at all, and prints how each ended.

    echo '{"records": [{"value": "a"}, {"value": "b"}], "commit": true}' | ./transactions write 127.0.0.1:9092 orders my-id
    ./transactions copy 127.0.0.1:9092 orders orders.copy my-group my-id

`write` makes a transaction of each line of stdin; one whose "commit" is false it aborts once its records are written.
Of "key", "value" and "partition" of a record all but "value" may be missing.

`copy` reads a topic in a consumer group and writes each value, in upper case, to another one. The copies and the position
behind what was read are one transaction, so each record is copied exactly once, whatever becomes of this process.

A transactional id belongs to one producer at a time. A new one of the same id, after a crash say, ends what the one
before has left open, and shuts it out.
"""

import argparse
import json
import signal
import sys

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

parser = argparse.ArgumentParser()
commands = parser.add_subparsers(dest="command", required=True)
writing = commands.add_parser("write")
copying = commands.add_parser("copy")
for command, names in ((writing, ["bootstrap", "topic", "id"]), (copying, ["bootstrap", "topic", "output", "group", "id"])):
    for name in names:
        command.add_argument(name)
copying.add_argument("--abort-every", type=int, metavar="N", help="abort each Nth transaction, and read its records again")
args = parser.parse_args()

producer = Producer(
    {
        "bootstrap.servers": args.bootstrap,
        "transactional.id": args.id,
        "linger.ms": 5,
    }
)


def retried(step, *arguments):
    """Once more where the error may pass by itself."""
    while True:
        try:
            return step(*arguments)
        except KafkaException as error:
            if not error.args[0].retriable():
                raise


def commit():
    """True once it is committed, false where it can only be aborted; any other error is final."""
    try:
        retried(producer.commit_transaction)
    except KafkaException as error:
        if not error.args[0].txn_requires_abort():
            raise
        return False
    print(json.dumps({"transaction": "committed"}), flush=True)
    return True


def abort():
    retried(producer.abort_transaction)
    print(json.dumps({"transaction": "aborted"}), flush=True)


def write():
    for line in sys.stdin:
        transaction = json.loads(line)
        producer.begin_transaction()
        for record in transaction["records"]:
            options = {"partition": record["partition"]} if "partition" in record else {}
            producer.produce(args.topic, key=record.get("key"), value=record["value"], **options)
        producer.flush()
        if not (transaction["commit"] and commit()):
            abort()


def copy():
    consumer = Consumer(
        {
            "bootstrap.servers": args.bootstrap,
            "group.id": args.group,
            "auto.offset.reset": "earliest",  # where the group has no position yet
            "enable.auto.commit": False,  # positions are committed in the transactions
            "isolation.level": "read_committed",
            "session.timeout.ms": 6_000,  # a member that dies without leaving is missed after this
        }
    )
    consumer.subscribe([args.topic])
    count = 0
    while running:
        messages = consumer.consume(num_messages=10, timeout=0.2)
        # A rebalance in the middle of consume() may have taken partitions away.
        own = {p.partition for p in consumer.assignment()}
        positions = {}
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
            if message.partition() not in own:
                continue
            if not positions:
                producer.begin_transaction()
            producer.produce(args.output, key=message.key(), value=message.value().upper())
            positions[message.partition()] = message.offset() + 1
        if not positions:
            continue
        count += 1
        if not commit_copies(consumer, positions, count):
            abort()
            rewind(consumer)
    consumer.close()


def commit_copies(consumer, positions, count):
    producer.flush()
    if args.abort_every and count % args.abort_every == 0:
        return False
    offsets = [TopicPartition(args.topic, partition, offset) for partition, offset in positions.items()]
    try:
        # With its own metadata a member that the group has gone on without can commit nothing.
        retried(producer.send_offsets_to_transaction, offsets, consumer.consumer_group_metadata())
    except KafkaException as error:
        if not error.args[0].txn_requires_abort():
            raise
        return False
    return commit()


def rewind(consumer):
    """Back to the last committed positions."""
    for partition in consumer.committed(consumer.assignment()):
        if partition.offset < 0:  # there is none yet
            partition.offset, _ = consumer.get_watermark_offsets(partition)
        consumer.seek(partition)


running = True


def stop(*_):
    global running
    running = False


if args.command == "copy":
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
retried(producer.init_transactions)
if args.command == "write":
    write()
else:
    copy()
