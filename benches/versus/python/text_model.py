"""A BERT folder of Hugging Face for ONNX Runtime and for PyTorch: token ids to normalized mean embeddings.

Both engines are what one would write today: transformers' BertModel, and its export to ONNX
(`export_onnx.py`, `model.onnx` in the folder). Texts of a batch are padded to the longest.
"""

import os

import numpy as np
import orjson
from tokenizers import Tokenizer


def pad(texts):
    """Ids and mask, [texts, tokens of the longest]."""
    ids = np.zeros((len(texts), max(map(len, texts))), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return ids, mask


def torch_module(folder):
    """From ids and mask to normalized means."""
    import torch
    from transformers import BertModel

    class Embedder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = BertModel.from_pretrained(folder, add_pooling_layer=False)

        def forward(self, ids, mask):
            hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            return torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=1)

    return Embedder().eval()


def onnx_runtime(folder, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        os.path.join(folder, "model.onnx"), options, providers=["CPUExecutionProvider"]
    )

    def infer(texts):
        ids, mask = pad(texts)
        return session.run(None, {"ids": ids, "mask": mask})[0]

    return infer


def torch_cpu(folder, threads):
    import torch

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    module = torch_module(folder)

    def infer(texts):
        ids, mask = pad(texts)
        with torch.inference_mode():
            return module(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()

    return infer


ENGINES = {"onnxruntime": onnx_runtime, "torch": torch_cpu}

# As the model topic's `text` has it.
MAX_TOKENS = 256
# More at a time are slower on a processor, since a batch is as long as its longest text.
BATCH = 1


def load(engine, folder):
    """From JSON records with a text in `body` to Milena's JSON outputs; one thread."""
    infer = ENGINES[engine](folder, 1)
    tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)

    def outputs(values):
        encoded = tokenizer.encode_batch([orjson.loads(value)["body"] for value in values])
        embeddings = infer([text.ids for text in encoded])
        return [
            orjson.dumps({"embedding": row}, option=orjson.OPT_SERIALIZE_NUMPY)
            for row in np.ascontiguousarray(embeddings, dtype=np.float32)
        ]

    return outputs
