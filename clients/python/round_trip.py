"""Sends transactions, reads their scores in a consumer group, and checks that each has exactly one.

    python round_trip.py 127.0.0.1:9092

Needs a broker that runs the fraud model topic (config/fraud/milena.toml) and confluent-kafka.
"""

import json
import sys
import time
import uuid

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, ConfigResource

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
RECORDS = 2_000


def transaction(tx_id: str, n: int) -> dict:
    return {
        "tx_id": tx_id,
        "customer_id": f"c-{n % 100}",
        "ts": int(time.time() * 1000),
        "amount": 5.0 + n % 500,
        "currency": "EUR",
        "merchant": {"category": "groceries", "country": "CZ"},
        "card_present": n % 3 != 0,
        "hour": n % 24,
        "country": "CZ",
        "n_last_hour": n % 4,
        "amount_vs_mean": 1.0,
        "account_age_days": 400,
        "distance_km": 3.5,
    }


def produce(bootstrap: str, run: str) -> set[str]:
    sent, failed = set(), []
    for codec in CODECS:
        producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "compression.type": codec,
                "enable.idempotence": True,
                "linger.ms": 5,
            }
        )
        for n in range(RECORDS // len(CODECS)):
            tx_id = f"{run}-{codec}-{n}"
            sent.add(tx_id)
            producer.produce(
                "transactions",
                key=tx_id,
                value=json.dumps(transaction(tx_id, n)),
                headers={"codec": codec},
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
            producer.poll(0)
        producer.flush(30)
    if failed:
        sys.exit(f"{len(failed)} deliveries failed, the first with {failed[0]}")
    return sent


def consume(bootstrap: str, run: str, expected: set[str]) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"round-trip-{run}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe(["transactions.scored"])
    scores: dict[str, float] = {}
    deadline = time.monotonic() + 60
    while scores.keys() != expected:
        if time.monotonic() > deadline:
            sys.exit(f"{len(scores)} of {len(expected)} transactions were scored in a minute")
        message = consumer.poll(0.5)
        if message is None:
            continue
        if message.error():
            sys.exit(f"consume: {message.error()}")
        tx_id = message.key().decode()
        if not tx_id.startswith(run):
            continue
        if tx_id in scores:
            sys.exit(f"{tx_id} was scored twice")
        scores[tx_id] = json.loads(message.value())["score"]
    consumer.commit(asynchronous=False)
    committed = sum(max(p.offset, 0) for p in consumer.committed(consumer.assignment()))
    if committed < len(expected):
        sys.exit(f"committed offsets add up to {committed}, expected at least {len(expected)}")
    consumer.close()


def describe(bootstrap: str) -> None:
    resource = ConfigResource(ConfigResource.Type.TOPIC, "transactions.scored")
    admin = AdminClient({"bootstrap.servers": bootstrap})
    future = admin.describe_configs([resource])[resource]
    if "cleanup.policy" not in future.result(timeout=10):
        sys.exit("the topic's configs have no cleanup.policy")


def main() -> None:
    bootstrap, run = sys.argv[1], uuid.uuid4().hex[:8]
    expected = produce(bootstrap, run)
    consume(bootstrap, run, expected)
    describe(bootstrap)
    print(f"confluent-kafka, {', '.join(CODECS)}: {len(expected)} transactions, one score each")


if __name__ == "__main__":
    main()
