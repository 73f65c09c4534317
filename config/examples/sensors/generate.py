"""Readings of made-up machines, one JSON line each, in the order of time.

    python generate.py --machines 20 --seconds 600 --seed 1 --labels labels.jsonl

The same arguments give the same lines. Python's own library is enough.

A machine runs for 5 to 20 minutes at one of two speeds, then stands still for 45 seconds to 5 minutes. While it runs it
gives a reading a second, but for short drop-outs. Its load wanders; temperature (which follows slowly), vibration, pressure and
speed follow from the load and the set speed, with noise, and from what the machine is: no two are quite alike.

In some runs a fault sets in and lasts until the machine stops; it is repaired in the pause. The kinds:

    bearing      vibration grows, and its spread with it
    overheating  the temperature heads for one that is too high
    leak         pressure falls
    stuck        the sensor of temperature, vibration or pressure repeats its last reading

A reading does not say that there is a fault. --labels writes those that have one to a file of their own.
"""

import argparse
import heapq
import json
import math
import random
import sys

START = 1763625600000  # the first second, in ms since 1970
FAULTS = ["bearing", "overheating", "leak", "stuck"]
SENSORS = ["temperature", "vibration", "pressure"]
FAULT_RATE = 0.08  # part of the runs


class Fault:
    """One that sets in at a second of a run."""

    def __init__(self, rng):
        self.kind = rng.choice(FAULTS)
        self.seconds = rng.uniform(60, 240)
        self.size = {"bearing": rng.uniform(0.3, 1.0), "overheating": rng.uniform(15, 40), "leak": rng.uniform(0.05, 0.2)}
        self.sensor = rng.choice(SENSORS)
        self.age = 0  # seconds since it set in

    def of(self, kind):
        """How large it is by now, where it is of a kind."""
        return self.size[kind] * (1 - math.exp(-self.age / 60)) if self.kind == kind else 0.0


class Machine:
    def __init__(self, number, seed, fault_rate):
        self.id = f"m-{number:02}"
        self.rng = rng = random.Random(f"{seed} {self.id}")
        self.fault_rate = fault_rate
        self.phase = rng.randrange(1000)  # its readings' part of a second, in ms
        self.ambient = rng.gauss(22, 1)
        self.heat = rng.gauss(68, 1)
        self.shake = rng.gauss(1.0, 0.03)
        self.pump = rng.gauss(4.4, 0.03)
        self.warmth = self.ambient + rng.uniform(0, 40)

    def readings(self, seconds):
        """(reading, kind of fault or None), in order."""
        second = self.rng.randrange(120)
        while second < seconds:
            length = self.rng.randrange(300, 1200)
            yield from self.run(range(second, min(second + length, seconds)), length)
            pause = self.rng.randrange(45, 300)
            self.warmth = self.ambient + (self.warmth - self.ambient) * math.exp(-pause / 400)
            second += length + pause

    def run(self, span, length):
        """The readings of a run of some length, of which a span of seconds is asked for."""
        rng = self.rng
        speed = rng.choice([980, 1480])
        fault = Fault(rng) if rng.random() < self.fault_rate else None
        load = goal = rng.uniform(0.25, 0.95)
        silent, last = 0, None
        for at, second in enumerate(span):
            if rng.random() < 1 / 200:
                goal = rng.uniform(0.25, 0.95)
            load += (goal - load) / 20 + rng.gauss(0, 0.01)
            load = min(max(load, 0.1), 1.0)
            active = fault if fault and at >= length - fault.seconds else None
            values = self.values(speed, load, active)
            if active:
                active.age += 1
                if active.kind == "stuck" and last:
                    values[active.sensor] = last[active.sensor]
            last = values
            silent = silent - 1 if silent else rng.randrange(1, 9) if rng.random() < 0.002 else 0
            if not silent:
                ts = START + 1000 * second + self.phase
                yield {"machine_id": self.id, "ts": ts, **values}, active and active.kind

    def values(self, speed, load, fault):
        """What the sensors say now."""
        rng = self.rng
        size = fault.of if fault else lambda kind: 0.0
        drive = speed / 1480
        target = self.ambient + self.heat * (0.25 + 0.75 * load) * drive**1.5 + size("overheating")
        self.warmth += (target - self.warmth) / 60
        worn = size("bearing")
        vibration = self.shake * (0.8 + drive**2) * (1 + 0.3 * load) * (1 + worn) * (1 + rng.gauss(0, 0.04 + 0.15 * worn))
        pressure = (self.pump + 0.9 * drive - 0.4 * load) * (1 - size("leak")) + rng.gauss(0, 0.03)
        return {
            "temperature": round(self.warmth + rng.gauss(0, 0.2), 1),
            "vibration": round(vibration, 2),
            "pressure": round(pressure, 2),
            "rpm": round(speed * (1 - 0.02 * load) + rng.gauss(0, 2)),
            "load": round(load, 2),
        }


def generate(machines, seconds, seed, fault_rate=FAULT_RATE):
    """(reading, kind of fault or None) of all machines, in the order of time."""
    streams = [Machine(number, seed, fault_rate).readings(seconds) for number in range(1, machines + 1)]
    return heapq.merge(*streams, key=lambda labelled: (labelled[0]["ts"], labelled[0]["machine_id"]))


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--machines", type=int, default=20)
    options.add_argument("--seconds", type=int, default=600, help="of event time, not of waiting")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--labels", metavar="FILE", help="gets which readings have a fault, and of what kind")
    given = options.parse_args()

    labels = open(given.labels, "w", encoding="utf-8") if given.labels else None
    for reading, fault in generate(given.machines, given.seconds, given.seed):
        sys.stdout.write(json.dumps(reading, separators=(",", ":")) + "\n")
        if fault and labels:
            label = {"machine_id": reading["machine_id"], "ts": reading["ts"], "fault": fault}
            labels.write(json.dumps(label, separators=(",", ":")) + "\n")
    if labels:
        labels.close()


if __name__ == "__main__":
    main()
