"""Scores the records of a Kafka topic into another one, as Milena's model topics do: the Python pipeline.

    scorer.py --kind rows --engine onnxruntime --model FOLDER --bootstrap HOST:PORT --input TOPIC \\
              --output TOPIC --partitions 0,1,2,3 --group NAME

At least once: offsets are committed about every second, after all that was produced before is
acknowledged. Each output has its input's key and partition, and the JSON that Milena writes. The
partitions are assigned, so that a start waits for no group to gather. A record that is not what the model
needs, or is not delivered, ends the program. SIGTERM ends it after a last commit.
"""

import argparse
import importlib
import signal
import time

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException, Producer, TopicPartition

COMMIT_SECONDS = 1.0

parser = argparse.ArgumentParser()
parser.add_argument("--kind", choices=["rows", "text"], required=True)
parser.add_argument("--engine", choices=["onnxruntime", "torch"], required=True)
parser.add_argument("--model", required=True)
parser.add_argument("--bootstrap", required=True)
parser.add_argument("--input", required=True)
parser.add_argument("--output", required=True)
parser.add_argument("--partitions", required=True)
parser.add_argument("--group", required=True)
parser.add_argument("--linger-ms", type=float, default=1)
args = parser.parse_args()

running = True
lost = []


def stop(*_):
    global running
    running = False


def delivered(error, _message):
    if error is not None:
        lost.append(error)


signal.signal(signal.SIGTERM, stop)
model = importlib.import_module({"rows": "model", "text": "text_model"}[args.kind])
outputs_of = model.load(args.engine, args.model)

consumer = Consumer(
    {
        "bootstrap.servers": args.bootstrap,
        "group.id": args.group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        # As much as a second takes, and looked after at once when there is room again.
        "queued.max.messages.kbytes": 16384,
        "fetch.queue.backoff.ms": 10,
    }
)
producer = Producer(
    {
        "bootstrap.servers": args.bootstrap,
        "acks": "all",
        "linger.ms": args.linger_ms,
        "batch.size": 1000000,
        "queue.buffering.max.messages": 500000,
        "delivery.report.only.error": True,
    }
)


def produce(message, value):
    while True:
        try:
            # One by one: produce_batch() takes longer, and does not say for sure what it has not taken.
            producer.produce(args.output, value, message.key(), message.partition(), delivered)
            return
        except BufferError:
            producer.poll(0.01)


def commit(offsets):
    producer.flush()
    if lost:
        raise KafkaException(lost[0])
    if offsets:
        positions = [TopicPartition(args.input, p, offset) for p, offset in offsets.items()]
        consumer.commit(offsets=positions, asynchronous=running)


def serve():
    offsets, committed_at = {}, time.monotonic()
    while running:
        # Waits for a first record, and takes what else is there.
        messages = consumer.consume(1, 0.1)
        if messages:
            if model.BATCH > 1:
                messages += consumer.consume(model.BATCH - 1, 0)
            for message in messages:
                if message.error():
                    raise KafkaException(message.error())
            outputs = outputs_of([message.value() for message in messages])
            for message, value in zip(messages, outputs):
                produce(message, value)
            producer.poll(0)
            offsets |= {message.partition(): message.offset() + 1 for message in messages}
        if time.monotonic() - committed_at > COMMIT_SECONDS:
            commit(offsets)
            offsets, committed_at = {}, time.monotonic()
    commit(offsets)


consumer.assign([TopicPartition(args.input, int(p), OFFSET_INVALID) for p in args.partitions.split(",")])
serve()
consumer.close()
