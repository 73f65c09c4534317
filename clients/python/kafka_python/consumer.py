"""Reads a topic in a consumer group and prints its records, one JSON object a line.

    ./consumer 127.0.0.1:9092 transactions.scored my-group

Every record is printed at least once: its position is committed after it has been printed.
"""

import argparse
import json
import signal

from kafka import ConsumerRebalanceListener, KafkaConsumer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import CommitFailedError, RebalanceInProgressError

ASSIGNORS = {"range": RangePartitionAssignor, "cooperative-sticky": CooperativeStickyAssignor}

parser = argparse.ArgumentParser()
parser.add_argument("bootstrap")
parser.add_argument("topic")
parser.add_argument("group")
parser.add_argument("--from-timestamp", type=int, metavar="MS", help="start at this time, not where the group is")
parser.add_argument("--assignor", default="range", choices=ASSIGNORS)
parser.add_argument("--instance-id", help="a static member keeps its partitions through a short restart")
args = parser.parse_args()

consumer = KafkaConsumer(
    bootstrap_servers=args.bootstrap,
    group_id=args.group,
    group_instance_id=args.instance_id,
    auto_offset_reset="earliest",  # where the group has no position yet
    enable_auto_commit=False,
    session_timeout_ms=10_000,  # a member that dies without leaving is missed after this
    partition_assignment_strategy=(ASSIGNORS[args.assignor],),
)
new_partitions = set()


def show(event):
    print(json.dumps(event), flush=True)


class Listener(ConsumerRebalanceListener):
    """Must not block: it runs where the heartbeats are sent from."""

    def on_partitions_assigned(self, assigned):
        show({"event": "assigned", "partitions": sorted(p.partition for p in assigned)})
        new_partitions.update(assigned)

    def on_partitions_revoked(self, revoked):
        show({"event": "revoked", "partitions": sorted(p.partition for p in revoked)})
        new_partitions.difference_update(revoked)


def seek_to_time(partitions, timestamp_ms):
    """To the first record that is as late, or to the end where there is none."""
    found = consumer.offsets_for_times({p: timestamp_ms for p in partitions})
    ends = consumer.end_offsets(list(partitions))
    for partition in partitions & consumer.assignment():
        start = found.get(partition)
        consumer.seek(partition, start.offset if start else ends[partition])


def text(data):
    return None if data is None else data.decode()


running = True


def stop(*_):
    global running
    running = False


signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)

consumer.subscribe([args.topic], listener=Listener())
while running:
    batches = consumer.poll(timeout_ms=200)
    if args.from_timestamp is not None and new_partitions:
        partitions = set(new_partitions)
        new_partitions -= partitions
        seek_to_time(partitions, args.from_timestamp)
        # What came from where the group was is not wanted.
        batches = {p: records for p, records in batches.items() if p not in partitions}
    for records in batches.values():
        for record in records:
            show(
                {
                    "partition": record.partition,
                    "offset": record.offset,
                    "timestamp": record.timestamp,
                    "key": text(record.key),
                    "value": text(record.value),
                    "headers": {name: text(value) for name, value in record.headers},
                }
            )
    if batches:
        try:
            consumer.commit()
        except (CommitFailedError, RebalanceInProgressError):
            # The partitions are on their way to another member, which reads from the last commit.
            pass
consumer.close()  # leaves the group: its partitions go to the other members at once
