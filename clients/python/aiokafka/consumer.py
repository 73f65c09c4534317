"""Reads a topic in a consumer group and prints its records, one JSON object a line.

    ./consumer 127.0.0.1:9092 transactions.scored my-group

Every record is printed at least once: its position is committed after it has been printed.
"""

import argparse
import asyncio
import json
import signal
import sys

from aiokafka import AIOKafkaConsumer
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError

parser = argparse.ArgumentParser()
parser.add_argument("bootstrap")
parser.add_argument("topic")
parser.add_argument("group")
parser.add_argument("--from-timestamp", type=int, metavar="MS", help="start at this time, not where the group is")
parser.add_argument("--assignor", default="range", choices=["range", "cooperative-sticky"])
parser.add_argument("--instance-id", help="a static member keeps its partitions through a short restart")
args = parser.parse_args()
if args.assignor != "range":
    print("aiokafka has no cooperative-sticky assignor", file=sys.stderr)
    sys.exit(2)


def show(event):
    print(json.dumps(event), flush=True)


def text(data):
    return None if data is None else data.decode()


class Listener(ConsumerRebalanceListener):
    """Called between two generations of the group; records are fetched again when it is done."""

    def __init__(self, consumer):
        self.consumer = consumer

    async def on_partitions_revoked(self, revoked):
        show({"event": "revoked", "partitions": sorted(p.partition for p in revoked)})

    async def on_partitions_assigned(self, assigned):
        show({"event": "assigned", "partitions": sorted(p.partition for p in assigned)})
        if args.from_timestamp is None or not assigned:
            return
        found = await self.consumer.offsets_for_times({p: args.from_timestamp for p in assigned})
        ends = await self.consumer.end_offsets(assigned)
        for partition in assigned:
            start = found.get(partition)
            self.consumer.seek(partition, start.offset if start else ends[partition])


async def main():
    consumer = AIOKafkaConsumer(
        bootstrap_servers=args.bootstrap,
        group_id=args.group,
        group_instance_id=args.instance_id,
        auto_offset_reset="earliest",  # where the group has no position yet
        enable_auto_commit=False,
        session_timeout_ms=10_000,  # a member that dies without leaving is missed after this
        partition_assignment_strategy=(RangePartitionAssignor,),
    )
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    consumer.subscribe([args.topic], listener=Listener(consumer))
    await consumer.start()
    try:
        while not stop.is_set():
            batches = await consumer.getmany(timeout_ms=200)
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
                    await consumer.commit()
                except (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError):
                    # The partitions are on their way to another member, which reads from the last commit.
                    pass
    finally:
        await consumer.stop()  # leaves the group: its partitions go to the other members at once


asyncio.run(main())
