"""How fast ONNX Runtime and PyTorch embed texts, as `cargo run -p benches --bin encoder` asks for it.

    encoder.py --engine onnxruntime --model FOLDER --cases FILE --threads 1 --batches 1,32 --seconds 1

The file has a JSON object of lists of texts, which are lists of token ids. For each list and number of
texts in a batch all texts are embedded as often as there is time, and a line of JSON says how many texts a second there were, and the median time of a batch.
"""

import argparse
import json
import statistics
import time

from text_model import ENGINES

parser = argparse.ArgumentParser()
parser.add_argument("--engine", choices=ENGINES, required=True)
parser.add_argument("--model", required=True)
parser.add_argument("--cases", required=True)
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--batches", required=True)
parser.add_argument("--seconds", type=float, required=True)
args = parser.parse_args()

infer = ENGINES[args.engine](args.model, args.threads)
with open(args.cases, encoding="utf-8") as file:
    cases = json.load(file)
for case, texts in cases.items():
    for batch in map(int, args.batches.split(",")):
        infer(texts[:batch])
        times, passes, began = [], 0, time.perf_counter()
        while time.perf_counter() - began < args.seconds or passes == 0:
            for at in range(0, len(texts), batch):
                started = time.perf_counter()
                infer(texts[at : at + batch])
                times.append((time.perf_counter() - started) * 1e3)
            passes += 1
        rate = passes * len(texts) / (time.perf_counter() - began)
        print(json.dumps({"case": case, "batch": batch, "texts_per_second": rate, "p50_ms": statistics.median(times)}))
