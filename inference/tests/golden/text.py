"""Writes `text/`: small encoders of random weights, and what transformers makes of some texts with them.

    pip install 'torch==2.*' 'transformers==5.*' && python inference/tests/golden/text.py

Each folder is what `save_pretrained` writes, and `golden.json`: token ids of texts of several lengths, and for each text
the mean and the first of the last layer's rows, and the logits of the classifier. All computed in float32 from the weights
as they are in the file, one text at a time, so that no padding takes part.
"""

import json
import pathlib
import shutil
import string

import torch
from tokenizers import Tokenizer, models as token_models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

FOLDER = pathlib.Path(__file__).parent / "text"
LENGTHS = [1, 2, 7, 16, 17, 33, 60]
VOCABULARY = 80

# What all but DistilBERT call the same.
SIZES = dict(
    vocab_size=VOCABULARY,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=40,
    max_position_embeddings=64,
)
LABELS = dict(id2label={0: "a", 1: "b", 2: "c"}, label2id={"a": 0, "b": 1, "c": 2})


TEXTS = ["", "hello world", "Hello, WORLD!", "na\u00efve caf\u00e9", "a b c d e f g h", "\u6f22\u5b57 ok", "x" * 120]


def tokenizer():
    """WordPiece of the alphabet; like many that are published, its file also says how to pad and cut."""
    letters = list(string.ascii_lowercase)
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *letters, *(f"##{letter}" for letter in letters)]
    words += [".", ",", "!", "hello", "world", "##lo", "he", "caf", "##fe", "ok"]
    model = token_models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    golden = dict(texts=TEXTS, ids=[tokenizer.encode(text).ids for text in TEXTS])
    tokenizer.enable_truncation(6)
    golden["cut_to_6"] = [tokenizer.encode(text).ids for text in TEXTS]
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(FOLDER / "bert" / "tokenizer.json"), pretty=False)
    (FOLDER / "bert" / "tokens.json").write_text(json.dumps(golden) + "\n")


def models():
    yield "bert", BertForSequenceClassification(BertConfig(**SIZES, **LABELS)), torch.float32
    yield "bert-shards", BertModel(BertConfig(**SIZES, hidden_act="relu"), add_pooling_layer=False), torch.float16
    config = DistilBertConfig(
        vocab_size=VOCABULARY, dim=24, n_layers=2, n_heads=3, hidden_dim=40, max_position_embeddings=64, **LABELS
    )
    yield "distilbert", DistilBertForSequenceClassification(config), torch.bfloat16
    sizes = SIZES | dict(max_position_embeddings=66)
    config = XLMRobertaConfig(**sizes, **LABELS, pad_token_id=1, type_vocab_size=1, layer_norm_eps=1e-5)
    yield "xlm-roberta", XLMRobertaForSequenceClassification(config), torch.float16
    sizes = SIZES | dict(num_hidden_layers=4)
    config = ModernBertConfig(
        **sizes, **LABELS, local_attention=8, classifier_pooling="mean", pad_token_id=0, cls_token_id=1, sep_token_id=2,
        bos_token_id=1, eos_token_id=2,
    )
    yield "modernbert", ModernBertForSequenceClassification(config), torch.float16


def golden(model):
    texts = [torch.randint(2, VOCABULARY, (length,)) for length in LENGTHS]
    found = dict(ids=[text.tolist() for text in texts], mean=[], cls=[], logits=[])
    encoder = getattr(model, "base_model", model)
    for text in texts:
        with torch.no_grad():
            rows = encoder(input_ids=text[None]).last_hidden_state[0]
            found["mean"].append(rows.mean(0).tolist())
            found["cls"].append(rows[0].tolist())
            if encoder is not model:
                found["logits"].append(model(input_ids=text[None]).logits[0].tolist())
    return found


def main():
    torch.manual_seed(7)
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name, model, dtype in models():
        # Weights as they come are so small that attention looks everywhere alike.
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.25)
            else:
                parameter.data += torch.randn_like(parameter) * 0.1
        model = model.eval().to(dtype)
        size = "12KB" if name.endswith("-shards") else "5GB"
        model.save_pretrained(FOLDER / name, max_shard_size=size)
        # Read again, since what is computed and not saved (ModernBERT's rotations) was rounded, too.
        found = golden(type(model).from_pretrained(FOLDER / name, dtype=torch.float32).eval())
        rounded = {key: [[round(x, 6) for x in row] for row in rows] for key, rows in found.items()}
        (FOLDER / name / "golden.json").write_text(json.dumps(rounded) + "\n")
    tokenizer()


main()
