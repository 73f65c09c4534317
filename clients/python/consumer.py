"""Reads a topic in a consumer group and prints its records, one JSON object a line.

    ./consumer 127.0.0.1:9092 transactions.scored my-group

Every record is printed at least once: its position is committed after it has been printed.
"""

import argparse
import json
import signal

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

parser = argparse.ArgumentParser()
parser.add_argument("bootstrap")
parser.add_argument("topic")
parser.add_argument("group")
parser.add_argument("--from-timestamp", type=int, metavar="MS", help="start at this time, not where the group is")
parser.add_argument("--assignor", default="range", choices=["range", "cooperative-sticky"])
parser.add_argument("--instance-id", help="a static member keeps its partitions through a short restart")
args = parser.parse_args()

config = {
    "bootstrap.servers": args.bootstrap,
    "group.id": args.group,
    "auto.offset.reset": "earliest",  # where the group has no position yet
    "enable.auto.commit": False,
    "session.timeout.ms": 10_000,  # a member that dies without leaving is missed after this
    "partition.assignment.strategy": args.assignor,
}
if args.instance_id:
    config["group.instance.id"] = args.instance_id
consumer = Consumer(config)


def show(event):
    print(json.dumps(event), flush=True)


def assigned(consumer, partitions):
    show({"event": "assigned", "partitions": [p.partition for p in partitions]})
    if args.from_timestamp is not None:
        at = [TopicPartition(p.topic, p.partition, args.from_timestamp) for p in partitions]
        start = consumer.offsets_for_times(at, timeout=10)  # the end, where nothing is as late as that
        # With a cooperative assignor `partitions` are those that came in addition.
        (consumer.assign if args.assignor == "range" else consumer.incremental_assign)(start)


def revoked(consumer, partitions):
    commit()
    for partition in partitions:
        printed.pop(partition.partition, None)
    show({"event": "revoked", "partitions": [p.partition for p in partitions]})


printed = {}  # the next offset of each partition, where it is not committed yet

# While a rebalance is on its way a commit may be refused. It is tried again, at the latest before a
# partition is given away; failing that its new owner reads from the last commit that was accepted.
REBALANCED = (KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID)


def commit():
    if not printed:
        return
    try:
        offsets = [TopicPartition(args.topic, partition, offset) for partition, offset in printed.items()]
        consumer.commit(offsets=offsets, asynchronous=False)
        printed.clear()
    except KafkaException as refused:
        if refused.args[0].code() not in REBALANCED:
            raise


def text(data):
    return None if data is None else data.decode()


running = True


def stop(*_):
    global running
    running = False


signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)

consumer.subscribe([args.topic], on_assign=assigned, on_revoke=revoked)
while running:
    messages = consumer.consume(num_messages=500, timeout=0.2)
    # A rebalance in the middle of consume() may have taken partitions away: whoever has them now
    # reads these records from the last commit.
    own = {p.partition for p in consumer.assignment()}
    for message in messages:
        if message.error():
            raise KafkaException(message.error())
        if message.partition() not in own:
            continue
        show(
            {
                "partition": message.partition(),
                "offset": message.offset(),
                "timestamp": message.timestamp()[1],
                "key": text(message.key()),
                "value": text(message.value()),
                "headers": {name: text(value) for name, value in message.headers() or []},
            }
        )
        printed[message.partition()] = message.offset() + 1
    commit()
consumer.close()  # leaves the group: its partitions go to the other members at once
