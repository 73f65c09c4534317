"""Sends records from stdin, one JSON object a line, and prints where each was written.

    echo '{"key": "c-1", "value": "{\\"amount\\": 49.9}"}' | ./producer 127.0.0.1:9092 transactions

Of "key", "value", "headers", "timestamp" (milliseconds) and "partition" all but "value" may be missing.
"""

import argparse
import asyncio
import json
import sys

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

parser = argparse.ArgumentParser()
parser.add_argument("bootstrap")
parser.add_argument("topic")
parser.add_argument("--compression", default="none", choices=["none", "gzip", "snappy", "lz4", "zstd"])
args = parser.parse_args()


def data(text):
    return None if text is None else text.encode()


async def delivered(written):
    """Waits for one record; true once it is written."""
    try:
        metadata = await written
    except KafkaError as error:
        print(f"not written: {error!r}", file=sys.stderr)
        return False
    print(json.dumps({"partition": metadata.partition, "offset": metadata.offset}), flush=True)
    return True


async def main():
    producer = AIOKafkaProducer(
        bootstrap_servers=args.bootstrap,
        compression_type=None if args.compression == "none" else args.compression,
        # Waits for every replica, and a retry never writes a record twice.
        enable_idempotence=True,
        acks="all",
        linger_ms=5,
    )
    await producer.start()
    waiting = []
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            record = json.loads(line)
            written = await producer.send(
                args.topic,
                key=data(record.get("key")),
                value=data(record["value"]),
                headers=[(name, data(value)) for name, value in record.get("headers", {}).items()],
                timestamp_ms=record.get("timestamp"),
                partition=record.get("partition"),
            )
            waiting.append(asyncio.create_task(delivered(written)))
        return all(await asyncio.gather(*waiting))
    finally:
        await producer.stop()


sys.exit(0 if asyncio.run(main()) else 1)
