"""A Milena model folder (config.json, model.safetensors) for ONNX Runtime and for PyTorch.

Reads what the scorer needs of such a folder: an mlp with ReLU that classifies into two labels by one
logit, on numbers that are top-level members of the record. Anything else is refused. Both engines run on
one thread and take a float32 array [records, inputs]; they give an array [records] of logits.
"""

import json
import os
from itertools import chain
from operator import itemgetter

import numpy as np
import orjson
from safetensors.numpy import load_file


class Model:
    """What is in a model's folder."""

    def __init__(self, folder):
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            card = json.load(file)
        served = (card["model_type"], card["task"], card["activation"], card["output"], len(card["labels"]))
        if served != ("mlp", "classify", "relu", 1, 2):
            raise ValueError(f"this scorer does not serve {served}")
        inputs = card["inputs"]
        self.names = [input["path"].removeprefix("$.") for input in inputs]
        if any("." in name or "[" in name for name in self.names) or any("transform" in i for i in inputs):
            raise ValueError("this scorer serves top-level members without a transform")
        self.labels = card["labels"]
        self.mean = np.array([input.get("mean", 0.0) for input in inputs], dtype=np.float32)
        self.std = np.array([input.get("std", 1.0) for input in inputs], dtype=np.float32)
        tensors = load_file(os.path.join(folder, "model.safetensors"))
        count = len(card["hidden"]) + 1
        self.layers = [(tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"]) for i in range(count)]


def onnx_runtime(model):
    """The model as an ONNX graph, as PyTorch exports one: Gemm and Relu."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights, value = [], [], "rows"
    for i, (weight, bias) in enumerate(model.layers):
        weights += [numpy_helper.from_array(weight, f"w{i}"), numpy_helper.from_array(bias, f"b{i}")]
        nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], [f"gemm{i}"], transB=1))
        value = f"gemm{i}"
        if i + 1 < len(model.layers):
            nodes.append(helper.make_node("Relu", [value], [f"relu{i}"]))
            value = f"relu{i}"
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", len(model.names)])
    logits = helper.make_tensor_value_info(value, TensorProto.FLOAT, ["n", 1])
    graph = helper.make_graph(nodes, "mlp", [rows], [logits], weights)
    opset = [helper.make_opsetid("", 17)]
    proto = helper.make_model(graph, opset_imports=opset, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda rows: session.run(None, {"rows": rows})[0][:, 0]


def torch_cpu(model):
    """The model as an nn.Sequential."""
    import torch

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    modules = []
    for weight, bias in model.layers:
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
        linear.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
        modules += [linear, torch.nn.ReLU()]
    network = torch.nn.Sequential(*modules[:-1]).eval()

    def infer(rows):
        with torch.inference_mode():
            return network(torch.from_numpy(rows)).numpy()[:, 0]

    return infer


ENGINES = {"onnxruntime": onnx_runtime, "torch": torch_cpu}

BATCH = 1024


def load(engine, folder):
    """From JSON records to the scores of both labels, as Milena writes them."""
    model = Model(folder)
    infer = ENGINES[engine](model)
    pick = itemgetter(*model.names)
    width = len(model.names)
    first_label, second_label = model.labels

    def encode(score):
        # 0.5 is enough for the second label.
        other = 1.0 - score
        if score >= 0.5:
            best = {"label": second_label, "score": score}
        else:
            best = {"label": first_label, "score": other}
        return orjson.dumps(best | {"scores": {first_label: other, second_label: score}})

    def outputs(values):
        numbers = chain.from_iterable(map(pick, map(orjson.loads, values)))
        rows = np.fromiter(numbers, dtype=np.float32, count=len(values) * width)
        rows = (rows.reshape(-1, width) - model.mean) / model.std
        return map(encode, (1.0 / (1.0 + np.exp(-infer(rows).astype(np.float64)))).tolist())

    infer(np.zeros((BATCH, width), dtype=np.float32))
    return outputs
