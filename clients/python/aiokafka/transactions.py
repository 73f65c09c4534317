"""Writes in transactions, which are read as a whole or not at all, and prints how each ended.

    echo '{"records": [{"value": "a"}, {"value": "b"}], "commit": true}' | ./transactions write 127.0.0.1:9092 orders my-id
    ./transactions copy 127.0.0.1:9092 orders orders.copy my-group my-id

`write` makes a transaction of each line of stdin; one whose "commit" is false it aborts once its records are written.
Of "key", "value" and "partition" of a record all but "value" may be missing.

`copy` reads a topic in a consumer group and writes each value, in upper case, to another one. The copies and the position
behind what was read are one transaction, so each record is copied exactly once, also where this process is killed and
started again. aiokafka does not say which member a position is from, so a group's members that go on at the same time
could copy a record twice in a rebalance: have one.

A transactional id belongs to one producer at a time. A new one of the same id ends what the one before has left open,
and shuts it out.
"""

import argparse
import asyncio
import json
import signal
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

parser = argparse.ArgumentParser()
commands = parser.add_subparsers(dest="command", required=True)
writing = commands.add_parser("write")
copying = commands.add_parser("copy")
for command, names in ((writing, ["bootstrap", "topic", "id"]), (copying, ["bootstrap", "topic", "output", "group", "id"])):
    for name in names:
        command.add_argument(name)
copying.add_argument("--abort-every", type=int, metavar="N", help="abort each Nth transaction, and read its records again")
args = parser.parse_args()


class Aborted(Exception):
    """Leaves a transaction without a commit."""


def data(text):
    return None if text is None else text.encode()


def ended(how):
    print(json.dumps({"transaction": how}), flush=True)


async def write(producer):
    while line := await asyncio.to_thread(sys.stdin.readline):
        transaction = json.loads(line)
        try:
            async with producer.transaction():  # commits at the end; an exception aborts
                written = [
                    await producer.send(
                        args.topic,
                        key=data(record.get("key")),
                        value=data(record["value"]),
                        partition=record.get("partition"),
                    )
                    for record in transaction["records"]
                ]
                await asyncio.gather(*written)
                if not transaction["commit"]:
                    raise Aborted
            ended("committed")
        except Aborted:
            ended("aborted")


async def copy(producer, stop):
    consumer = AIOKafkaConsumer(
        args.topic,
        bootstrap_servers=args.bootstrap,
        group_id=args.group,
        auto_offset_reset="earliest",  # where the group has no position yet
        enable_auto_commit=False,  # positions are committed in the transactions
        isolation_level="read_committed",
        session_timeout_ms=6_000,  # a member that dies without leaving is missed after this
    )
    await consumer.start()
    try:
        count = 0
        while not stop.is_set():
            batches = await consumer.getmany(timeout_ms=200, max_records=10)
            if not batches:
                continue
            count += 1
            try:
                async with producer.transaction():
                    written = [
                        await producer.send(args.output, key=record.key, value=record.value.upper())
                        for records in batches.values()
                        for record in records
                    ]
                    await asyncio.gather(*written)
                    positions = {partition: records[-1].offset + 1 for partition, records in batches.items()}
                    await producer.send_offsets_to_transaction(positions, args.group)
                    if args.abort_every and count % args.abort_every == 0:
                        raise Aborted
                ended("committed")
            except Aborted:
                ended("aborted")
                await rewind(consumer)
    finally:
        await consumer.stop()  # leaves the group


async def rewind(consumer):
    """Back to the last committed positions."""
    for partition in consumer.assignment():
        position = await consumer.committed(partition)
        if position is None:
            await consumer.seek_to_beginning(partition)
        else:
            consumer.seek(partition, position)


async def main():
    producer = AIOKafkaProducer(bootstrap_servers=args.bootstrap, transactional_id=args.id, linger_ms=5)
    await producer.start()
    try:
        if args.command == "write":
            await write(producer)
        else:
            stop = asyncio.Event()
            for signal_number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
            await copy(producer, stop)
    finally:
        await producer.stop()


asyncio.run(main())
