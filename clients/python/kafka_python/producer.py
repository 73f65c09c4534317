"""Sends records from stdin, one JSON object a line, and prints where each was written.

    echo '{"key": "c-1", "value": "{\\"amount\\": 49.9}"}' | ./producer 127.0.0.1:9092 transactions

Of "key", "value", "headers", "timestamp" (milliseconds) and "partition" all but "value" may be missing.
"""

import argparse
import json
import sys

from kafka import KafkaProducer

parser = argparse.ArgumentParser()
parser.add_argument("bootstrap")
parser.add_argument("topic")
parser.add_argument("--compression", default="none", choices=["none", "gzip", "snappy", "lz4", "zstd"])
args = parser.parse_args()

producer = KafkaProducer(
    bootstrap_servers=args.bootstrap,
    compression_type=None if args.compression == "none" else args.compression,
    # Waits for every replica, and a retry never writes a record twice.
    enable_idempotence=True,
    acks="all",
    linger_ms=5,
)
failed = 0


def data(text):
    return None if text is None else text.encode()


def delivered(written):
    print(json.dumps({"partition": written.partition, "offset": written.offset}), flush=True)


def not_delivered(error):
    global failed
    failed += 1
    print(f"not written: {error}", file=sys.stderr)


for line in sys.stdin:
    record = json.loads(line)
    producer.send(
        args.topic,
        key=data(record.get("key")),
        value=data(record["value"]),
        headers=[(name, data(value)) for name, value in record.get("headers", {}).items()],
        timestamp_ms=record.get("timestamp"),
        partition=record.get("partition"),
    ).add_callback(delivered).add_errback(not_delivered)

producer.flush()
producer.close()
sys.exit(1 if failed else 0)
