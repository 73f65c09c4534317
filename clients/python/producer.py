"""Sends records from stdin, one JSON object a line, and prints where each was written.

    echo '{"key": "c-1", "value": "{\\"amount\\": 49.9}"}' | ./producer 127.0.0.1:9092 transactions

Of "key", "value", "headers", "timestamp" (milliseconds) and "partition" all but "value" may be missing.
"""

import argparse
import json
import sys

from confluent_kafka import Producer

parser = argparse.ArgumentParser()
parser.add_argument("bootstrap")
parser.add_argument("topic")
parser.add_argument("--compression", default="none", choices=["none", "gzip", "snappy", "lz4", "zstd"])
args = parser.parse_args()

producer = Producer(
    {
        "bootstrap.servers": args.bootstrap,
        "compression.type": args.compression,
        # Waits for every replica, and a retry never writes a record twice.
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": 5,
    }
)
failed = 0


def delivered(error, message):
    """Called from poll() and flush(), once for each record."""
    global failed
    if error:
        failed += 1
        print(f"not written: {error}", file=sys.stderr)
    else:
        print(json.dumps({"partition": message.partition(), "offset": message.offset()}), flush=True)


for line in sys.stdin:
    record = json.loads(line)
    options = {name: record[name] for name in ("timestamp", "partition") if name in record}
    while True:
        try:
            producer.produce(
                args.topic,
                key=record.get("key"),
                value=record["value"],
                headers=list(record.get("headers", {}).items()),
                on_delivery=delivered,
                **options,
            )
            break
        except BufferError:  # the queue is full: wait for deliveries
            producer.poll(1)
    producer.poll(0)

# flush() ends when every record is written or has failed for good (message.timeout.ms, five minutes).
producer.flush()
sys.exit(1 if failed else 0)
