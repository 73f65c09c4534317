"""Writes `model.onnx` into a BERT folder of Hugging Face, as transformers' model is exported by PyTorch.

    export_onnx.py FOLDER
"""

import os
import sys

import torch

from text_model import torch_module

folder = sys.argv[1]
ids = torch.randint(1000, 2000, (2, 7))
axes = {0: "texts", 1: "tokens"}
module = torch_module(folder)
# What PyTorch's own attention is exported to is slower in ONNX Runtime than the plain products, which it fuses.
module.bert.set_attn_implementation("eager")
path = os.path.join(folder, "model.onnx")
torch.onnx.export(
    module,
    (ids, torch.ones_like(ids)),
    path + ".part",
    input_names=["ids", "mask"],
    output_names=["embeddings"],
    dynamic_axes={"ids": axes, "mask": axes, "embeddings": {0: "texts"}},
    opset_version=17,
    dynamo=False,
)
os.rename(path + ".part", path)
