"""Scores transactions with what each customer did before, exactly once: what `config/examples/fraud` is, as a Python pipeline.

    stateful.py --engine onnxruntime --example config/examples/fraud --bootstrap HOST:PORT --input TOPIC --output TOPIC \\
                --changelog TOPIC --alerts TOPIC --partitions 0,1,2,3 --group NAME --transactional-id ID

Outputs, alerts, changed state and positions are committed in one Kafka transaction, of up to BATCH records. State is in
memory, by customer, and restored from the compacted changelog, whose partitions are those of the input. Windows are made of
slices as Milena makes them; distinct counts are exact. The partitions are assigned, so that a start waits for no group to
gather. A record that is not what the model needs ends the program. SIGTERM ends it between two transactions.
"""

import argparse
import json
import os
import signal
import tomllib
from itertools import chain

import numpy as np
import orjson
from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, Consumer, KafkaException, Producer, TopicPartition
from safetensors.numpy import load_file

from model import ENGINES

BATCH = 8192
WAIT_SECONDS = 0.1
GRACE = 120_000
# A slice's length in milliseconds, and how many are in a window.
MINUTES, HOUR, DAY = (30_000, 10), (360_000, 10), (14_400_000, 6)
NEVER = 604800.0


class Network:
    """The model's layers, for the engines."""

    def __init__(self, folder):
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            self.card = json.load(file)
        served = [self.card[key] for key in ("model_type", "task", "activation", "output")]
        if served != ["mlp", "classify", "relu", 1]:
            raise ValueError(f"this scorer does not serve {served}")
        tensors = load_file(os.path.join(folder, "model.safetensors"))
        count = len(self.card["hidden"]) + 1
        self.layers = [(tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"]) for i in range(count)]
        self.names = range(self.layers[0][0].shape[1])


class Scaling:
    """From what is known of a transaction to the model's row."""

    OWN = ["$.amount", "$.account_age_days", "$.hour", "$.card_present"]
    FEATURES = ["n_5m", "n_1h", "spent_1h", "max_1d", "mean_amount", "countries_1h", "categories_1h", "since_last"]

    def __init__(self, card):
        inputs = card["inputs"]
        found = [one.get("path", one.get("name")) for one in inputs]
        if found != self.OWN + ["$.merchant.category", "$.merchant.country"] + self.FEATURES:
            raise ValueError(f"this scorer does not know the inputs {found}")
        numbers = inputs[:4] + inputs[6:]
        self.logs = np.array([one.get("transform") == "log1p" for one in numbers])
        self.mean = np.array([one["mean"] for one in numbers], dtype=np.float32)
        self.std = np.array([one["std"] for one in numbers], dtype=np.float32)
        self.categories = {text: place for place, text in enumerate(inputs[4]["one_of"])}
        self.countries = {text: place for place, text in enumerate(inputs[5]["one_of"])}

    @staticmethod
    def one_hot(places, texts):
        return np.eye(len(places), dtype=np.float32)[[places[text] for text in texts]]

    def rows(self, numbers, categories, countries):
        shape = (len(numbers), len(self.mean))
        numbers = np.fromiter(chain.from_iterable(numbers), dtype=np.float64, count=shape[0] * shape[1]).reshape(shape)
        numbers[:, self.logs] = np.log1p(numbers[:, self.logs])
        numbers = (numbers.astype(np.float32) - self.mean) / self.std
        category = self.one_hot(self.categories, categories)
        country = self.one_hot(self.countries, countries)
        return np.concatenate((numbers[:, :4], category, country, numbers[:, 4:]), axis=1)


def slice_of(slices, at, window, stream):
    """The slice of a list that a time is in, if a window still takes it; those that no window needs go."""
    size, count = window
    closed = (stream - GRACE) // size - count
    while slices and slices[0][0] <= closed:
        del slices[0]
    number = at // size
    if number <= closed:
        return None
    place = len(slices)
    # Nearly always the last one, or a new one after it.
    while place and slices[place - 1][0] >= number:
        place -= 1
        if slices[place][0] == number:
            return slices[place]
    slices.insert(place, [number, 0, 0.0])
    return slices[place]


class Customers:
    """What is known of customers: [count, sum, last time, slices of 5 minutes, of an hour, of a day].

    A slice is [number, count, sum], in an hour's with lists of countries and categories; a day's has its largest amount for the sum.
    """

    def __init__(self):
        self.known = {}
        self.stream = {}

    def see(self, partition, customer, record):
        """The features of a transaction, which counts from now on. Written out: it is most of what a record costs."""
        at, amount, merchant = record["ts"], record["amount"], record["merchant"]
        country, category = merchant["country"], merchant["category"]
        stream = self.stream[partition] = max(self.stream.get(partition, at), at)
        state = self.known.get(customer)
        if state is None:
            state = self.known[customer] = [0, 0.0, None, [], [], []]
        total, spent_in_all, before, minutes, hours, days = state
        if (own := slice_of(minutes, at, MINUTES, stream)) is not None:
            own[1] += 1
        if (own := slice_of(hours, at, HOUR, stream)) is not None:
            own[1] += 1
            own[2] += amount
            if own[1] == 1:
                own += [country], [category]
            else:
                if country not in own[3]:
                    own[3].append(country)
                if category not in own[4]:
                    own[4].append(category)
        if (own := slice_of(days, at, DAY, stream)) is not None and amount > own[2]:
            own[2] = amount
        state[0] = total = total + 1
        state[1] = spent_in_all = spent_in_all + amount
        since = NEVER
        if before is None or at > before:
            state[2] = at
        if before is not None:
            since = max(at - before, 0) / 1000
        (size, length), just_now = MINUTES, 0
        last = at // size
        for one in minutes:
            if last - length < one[0] <= last:
                just_now += one[1]
        (size, length), count, spent, countries, categories = HOUR, 0, 0.0, (), ()
        last = at // size
        for one in hours:
            if last - length < one[0] <= last:
                # Most windows have one slice that is not empty.
                countries = {*countries, *one[3]} if count else one[3]
                categories = {*categories, *one[4]} if count else one[4]
                count += one[1]
                spent += one[2]
        (size, length), largest = DAY, 0.0
        last = at // size
        for one in days:
            if last - length < one[0] <= last and one[2] > largest:
                largest = one[2]
        return just_now, count, spent, largest, spent_in_all / total, len(countries), len(categories), since


class Pipeline:
    def __init__(self, args):
        self.args = args
        self.partitions = [int(partition) for partition in args.partitions.split(",")]
        with open(os.path.join(args.example, "milena.toml"), "rb") as file:
            spec = tomllib.load(file)["model_topic"][0]
        if [feature["name"] for feature in spec["feature"]] != Scaling.FEATURES:
            raise ValueError("this scorer does not know these features")
        network = Network(os.path.join(args.example, "model"))
        self.scaling = Scaling(network.card)
        self.infer = ENGINES[args.engine](network)
        self.customers = Customers()
        self.running = True
        common = {"bootstrap.servers": args.bootstrap}
        self.consumer = Consumer(
            common
            | {
                "group.id": args.group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "queued.max.messages.kbytes": 16384,
                "fetch.queue.backoff.ms": 10,
            }
        )
        self.producer = Producer(
            common
            | {
                "transactional.id": args.transactional_id,
                "linger.ms": 5,
                "batch.size": 1000000,
                "queue.buffering.max.messages": 500000,
            }
        )

    def restore(self):
        """Reads the changelog to its end."""
        consumer = self.consumer
        for partition in self.partitions:
            place = TopicPartition(self.args.changelog, partition, OFFSET_BEGINNING)
            _, end = consumer.get_watermark_offsets(place, timeout=10)
            if end == 0:
                continue
            consumer.assign([place])
            while consumer.position([place])[0].offset < end:
                for message in consumer.consume(10000, 0.1):
                    if message.error():
                        raise KafkaException(message.error())
                    state, stream = orjson.loads(message.value())
                    self.customers.known[message.key().decode()] = state
                    self.customers.stream[partition] = max(self.customers.stream.get(partition, stream), stream)
        positions = [TopicPartition(self.args.input, partition, OFFSET_INVALID) for partition in self.partitions]
        consumer.assign(positions)

    def produce(self, topic, key, value, partition):
        while True:
            try:
                self.producer.produce(topic, value, key, partition)
                return
            except BufferError:
                self.producer.poll(0.01)

    def score(self, messages):
        """Outputs, and what has changed of which customer."""
        numbers, categories, countries, seen, changed = [], [], [], [], {}
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
            record = orjson.loads(message.value())
            customer, partition = message.key().decode(), message.partition()
            features = self.customers.see(partition, customer, record)
            merchant = record["merchant"]
            own = (record["amount"], record["account_age_days"], record["hour"], record["card_present"])
            numbers.append(own + features)
            categories.append(merchant["category"])
            countries.append(merchant["country"])
            seen.append((record["tx_id"], record["customer_id"], features))
            changed[customer] = partition
        logits = self.infer(self.scaling.rows(numbers, categories, countries)).astype(np.float64)
        scores = (1.0 / (1.0 + np.exp(-logits))).tolist()
        return seen, scores, changed

    def transact(self, messages):
        producer, args = self.producer, self.args
        producer.begin_transaction()
        seen, scores, changed = self.score(messages)
        names = Scaling.FEATURES
        offsets = {}
        for message, (tx, customer, features), score in zip(messages, seen, scores):
            output = {"tx_id": tx, "customer_id": customer, "score": score, "features": dict(zip(names, features))}
            value, key, partition = orjson.dumps(output), message.key(), message.partition()
            self.produce(args.output, key, value, partition)
            if score >= 0.9:
                self.produce(args.alerts, key, value, partition)
            offsets[partition] = message.offset() + 1
        for customer, partition in changed.items():
            state = orjson.dumps((self.customers.known[customer], self.customers.stream[partition]))
            self.produce(args.changelog, customer.encode(), state, partition)
        positions = [TopicPartition(args.input, partition, offset) for partition, offset in offsets.items()]
        producer.send_offsets_to_transaction(positions, self.consumer.consumer_group_metadata())
        producer.commit_transaction()

    def run(self):
        self.producer.init_transactions()
        self.restore()
        while self.running:
            # Waits for a first record, and takes what else is there.
            messages = self.consumer.consume(1, WAIT_SECONDS)
            if messages:
                self.transact(messages + self.consumer.consume(BATCH - 1, 0))
        self.consumer.close()

    def stop(self, *_):
        self.running = False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", choices=list(ENGINES), required=True)
    for name in ["example", "bootstrap", "input", "output", "changelog", "alerts", "partitions", "group"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--transactional-id", required=True)
    pipeline = Pipeline(parser.parse_args())
    signal.signal(signal.SIGTERM, pipeline.stop)
    pipeline.run()


main()
