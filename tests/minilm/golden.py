"""Writes `embeddings.f16`: what PyTorch makes of each line of `texts.txt` with all-MiniLM-L6-v2; and prints figures.

    pip install 'torch==2.*' 'transformers==5.*' && python tests/minilm/golden.py "$(tests/minilm/fetch)"

A second argument, a folder of licence texts (Debian's /usr/share/common-licenses), makes `texts.txt` anew first:
sentences spread evenly over all files, in their order, then whole paragraphs, the longest of the files that have the
longest, some of which are more than the model takes.

Computed in float32, one text at a time, so that no padding takes part: at most 256 tokens, the mean of the last layer's
rows, divided by its length. Row after row of little-endian float16; rounding to it leaves a cosine of at least
1 - 3e-8 between each row and what it was.
"""

import pathlib
import platform
import re
import statistics
import sys

import numpy as np
import tokenizers
import torch
import transformers

HERE = pathlib.Path(__file__).parent
SENTENCES = 990
PARAGRAPHS = 10
MAX_TOKENS = 256


def paragraphs(file):
    """Separated by blank lines; whitespace within is single spaces."""
    return [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", file.read_text(encoding="utf-8"))]


def make_texts(folder):
    # Some are links to others.
    files = [paragraphs(file) for file in sorted({file.resolve() for file in folder.iterdir()})]
    longest = sorted({max(file, key=len) for file in files}, key=len)[-PARAGRAPHS:]
    sentences = [s for file in files for paragraph in file for s in re.split(r"(?<=[.;:?!]) ", paragraph)]
    # Those of one word are numbers of headings and the like.
    unique = [s for s in dict.fromkeys(sentences) if len(s.split()) >= 2 and s not in longest]
    if len(unique) < SENTENCES:
        sys.exit(f"{folder} has only {len(unique)} sentences")
    return [unique[n * len(unique) // SENTENCES] for n in range(SENTENCES)] + longest


def embed(model, ids):
    with torch.no_grad():
        rows = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    return torch.nn.functional.normalize(rows.mean(0), dim=0).numpy()


def lowest_cosine(left, right):
    left, right = left.astype(np.float64), right.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return ((left * right).sum(1) / lengths).min()


def main():
    folder = pathlib.Path(sys.argv[1])
    if len(sys.argv) > 2:
        (HERE / "texts.txt").write_text("".join(f"{text}\n" for text in make_texts(pathlib.Path(sys.argv[2]))), "utf-8")
    texts = (HERE / "texts.txt").read_text(encoding="utf-8").split("\n")[:-1]

    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    # The file says to cut and pad to 128.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    lengths = [len(tokenizer.encode(text).ids) for text in texts]
    tokenizer.enable_truncation(MAX_TOKENS)

    torch.set_num_threads(1)
    model = transformers.BertModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval()
    exact = np.stack([embed(model, tokenizer.encode(text).ids) for text in texts])
    rounded = exact.astype("<f2")
    (HERE / "embeddings.f16").write_bytes(rounded.tobytes())

    print(f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}")
    print(f"{len(texts)} texts ({len(set(texts))} different) x {exact.shape[1]}")
    print(f"tokens: {min(lengths)} / {statistics.median(lengths):g} / {max(lengths)} (least, median, most)")
    print(f"{sum(n > 100 for n in lengths)} of more than 100, {sum(n > MAX_TOKENS for n in lengths)} cut to {MAX_TOKENS}")
    print(f"lowest cosine of float32 and its rounding: 1 - {1 - lowest_cosine(exact, rounded):.2g}")


main()
