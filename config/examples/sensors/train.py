"""Trains the autoencoder of this folder on healthy readings, and says how well it finds faults.

    pip install -r requirements.txt
    python train.py                      # writes model/
    python train.py --validate           # the same training, but looks at no held-out reading and writes nothing

Readings come from `generate.py`, each part with a seed of its own, so that no machine is in two parts. The model is
trained on readings without faults. The threshold is the score that so many of other healthy readings reach
(`false_alarms`). The settings were chosen on a part with faults (validation); the figures are of a last one.

The features are those of the model topic in `milena.toml`: the sensors, and aggregates over a machine's session.

All random numbers come from seeds and there is one thread: one machine gives the same weights each time. Another
processor may round differently.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from safetensors.numpy import save_file

import generate

FEATURES = [
    "temperature", "vibration", "pressure", "rpm", "load",
    "vibration_mean", "vibration_std", "temperature_max", "temperature_delta", "readings",
]  # fmt: skip
GAP = 30_000  # of a session, in ms


@dataclasses.dataclass(frozen=True)
class Settings:
    seed: int = 20251120
    hidden: tuple = (16, 6, 16)
    false_alarms: float = 0.001  # part of the healthy readings that reach the threshold
    epochs: int = 30
    batch: int = 256
    rate: float = 5e-3


# The data.


class Session:
    """What is known of a machine since it was last silent for longer than the gap."""

    def __init__(self):
        self.count, self.mean, self.squares = 0, 0.0, 0.0
        self.hottest, self.last = -math.inf, None

    def row(self, reading):
        """The features of the session's next reading, which counts in them."""
        temperature, vibration = reading["temperature"], reading["vibration"]
        self.count += 1
        off = vibration - self.mean
        self.mean += off / self.count
        self.squares += off * (vibration - self.mean)
        self.hottest = max(self.hottest, temperature)
        delta = 0.0 if self.last is None else temperature - self.last
        self.last = temperature
        spread = math.sqrt(self.squares / self.count)
        sensors = [temperature, vibration, reading["pressure"], reading["rpm"], reading["load"]]
        return [*sensors, self.mean, spread, self.hottest, delta, math.log1p(self.count)]


def data(machines, hours, seed, fault_rate=generate.FAULT_RATE):
    """Rows, the fault of each (-1 or its place in `generate.FAULTS`), and the run it is in."""
    sessions, count, ends, rows, faults, runs = {}, 0, {}, [], [], []
    for reading, fault in generate.generate(machines, round(hours * 3600), seed, fault_rate):
        machine, ts = reading["machine_id"], reading["ts"]
        if machine not in ends or ts - ends[machine] > GAP:
            sessions[machine], count = (count, Session()), count + 1
        ends[machine] = ts
        run, session = sessions[machine]
        rows.append(session.row(reading))
        faults.append(generate.FAULTS.index(fault) if fault else -1)
        runs.append(run)
    return np.array(rows), np.array(faults), np.array(runs)


# The model.


class Autoencoder:
    """Layers with tanh between them; `parameters` are weight [out, in], bias [out], and so on."""

    def __init__(self, widths, rng):
        self.parameters = []
        for inputs, outputs in zip(widths, widths[1:]):
            bound = math.sqrt(6 / (inputs + outputs))
            self.parameters += [rng.uniform(-bound, bound, (outputs, inputs)), np.zeros(outputs)]

    def layers(self):
        return list(zip(self.parameters[::2], self.parameters[1::2]))

    def forward(self, x):
        """What each layer is given, and the reconstruction."""
        given = []
        for i, (weight, bias) in enumerate(self.layers()):
            given.append(x)
            x = x @ weight.T + bias
            if i + 1 < len(self.layers()):
                x = np.tanh(x)
        return given, x

    def scores(self, x):
        return np.concatenate([((part - self.forward(part)[1]) ** 2).mean(1) for part in np.array_split(x, len(x) // 4096 + 1)])

    def gradients(self, x):
        """Of the mean score."""
        given, y = self.forward(x)
        slope, found = 2 * (y - x) / y.size, []
        for (weight, _), before in reversed(list(zip(self.layers(), given))):
            found += [slope.sum(0), slope.T @ before]
            slope = (slope @ weight) * (1 - before**2)
        return found[::-1]


def train(rows, settings, say=print):
    """Adam, with a rate that falls to 0 along a cosine."""
    rng = np.random.default_rng(settings.seed)
    model = Autoencoder([rows.shape[1], *settings.hidden, rows.shape[1]], rng)
    first = [np.zeros_like(p) for p in model.parameters]
    second = [np.zeros_like(p) for p in model.parameters]
    steps, step = settings.epochs * (len(rows) // settings.batch), 0
    for epoch in range(1, settings.epochs + 1):
        order = rng.permutation(len(rows))
        for some in order[: len(rows) // settings.batch * settings.batch].reshape(-1, settings.batch):
            rate = settings.rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            step += 1
            for p, g, m, v in zip(model.parameters, model.gradients(rows[some]), first, second):
                m += 0.1 * (g - m)
                v += 0.001 * (g * g - v)
                p -= rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        if epoch % 5 == 0:
            say(f"epoch {epoch}: mean score {model.scores(rows).mean():.4f}")
    model.parameters = [p.astype(np.float32).astype(np.float64) for p in model.parameters]
    return model


# What it is compared with.


def distances(healthy):
    """Scores by the squared Mahalanobis distance, which knows how inputs go together only where they do so linearly."""
    mean, inverse = healthy.mean(0), np.linalg.inv(np.cov(healthy.T))
    return lambda rows: ((rows - mean) @ inverse * (rows - mean)).sum(1)


# How good it is.


def auc(healthy, faulty):
    """How often a faulty reading's score is above a healthy one's."""
    healthy = np.sort(healthy)
    below = (np.searchsorted(healthy, faulty, side) for side in ("left", "right"))
    return float(sum(below).mean() / 2 / len(healthy))


def judge(name, scores, faults, runs, threshold):
    """Prints the figures, and returns those of all faults together."""
    alarm, healthy = scores >= threshold, scores[faults < 0]
    rate = float(alarm[faults < 0].mean())
    precision = float((faults[alarm] >= 0).mean())
    print(f"{name}: {len(scores)} readings, {(faults >= 0).mean():.4f} of them faulty; of the healthy {rate:.5f} reach {threshold}")
    for kind, fault in [*enumerate(generate.FAULTS), (None, "all")]:
        of_kind = faults >= 0 if kind is None else faults == kind
        recall, area = float(alarm[of_kind].mean()), auc(healthy, scores[of_kind])
        # From a fault's first reading to its first alarm, in readings: about a second each.
        waits = []
        for run in np.unique(runs[of_kind]):
            found = np.flatnonzero(alarm[of_kind & (runs == run)])
            waits.append(found[0] if len(found) else math.inf)
        noticed = float(np.isfinite(waits).mean())
        half = f", half of all after {np.median(waits):.0f} readings" if noticed > 0.5 else ""
        print(
            f"  {fault}: {of_kind.sum()} readings, AUC {area:.4f}, recall {recall:.3f};"
            f" {len(waits)} faults, {noticed:.3f} noticed{half}"
        )
    print(f"  precision {precision:.3f}")
    return {"auc": round(area, 4), "precision": round(precision, 4), "recall": round(recall, 4), "false_alarms": round(rate, 5)}


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--out", default=pathlib.Path(__file__).parent / "model", type=pathlib.Path)
    options.add_argument("--validate", action="store_true", help="look at no held-out reading, write nothing")
    given = options.parse_args()

    settings = Settings()
    rows, _, _ = data(100, 2, 1, 0)
    mean, std = rows.mean(0).round(4), rows.std(0).round(4)
    scaled = lambda rows: ((rows - mean) / std).astype(np.float32).astype(np.float64)
    print(f"{len(rows)} healthy readings to train on")
    model, plain = train(scaled(rows), settings), distances(scaled(rows))
    print(f"weights: {sum(p.size for p in model.parameters)}")
    other = scaled(data(100, 2, 2, 0)[0])
    threshold_of = lambda scores: float(f"{np.quantile(scores(other), 1 - settings.false_alarms):.4g}")
    threshold = threshold_of(model.scores)
    rows, faults, runs = data(100, 2, 3)
    judge("validation", model.scores(scaled(rows)), faults, runs, threshold)
    if given.validate:
        return

    rows, faults, runs = data(120, 4, 4)
    figures = judge("held out", model.scores(scaled(rows)), faults, runs, threshold)
    judge("held out, by the Mahalanobis distance", plain(scaled(rows)), faults, runs, threshold_of(plain))
    card = {
        "model_type": "mlp",
        "task": "anomaly",
        "inputs": [{"name": name, "mean": float(m), "std": float(s)} for name, m, s in zip(FEATURES, mean, std)],
        "hidden": list(settings.hidden),
        "activation": "tanh",
        "output": len(FEATURES),
        "threshold": threshold,
        "metadata": {"trained_by": "python train.py", "held_out": figures},
    }
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "config.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    tensors = {}
    for i, (weight, bias) in enumerate(model.layers()):
        tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"] = weight.astype(np.float32), bias.astype(np.float32)
    save_file(tensors, given.out / "model.safetensors")
    (given.out / "model.safetensors").chmod(0o644)


if __name__ == "__main__":
    main()
