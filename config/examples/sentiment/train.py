"""Trains the sentiment classifier of this folder from nothing, and says how good it is.

    pip install -r requirements.txt
    python train.py                      # writes model/
    python train.py --validate           # the same training, but looks at no held-out text and writes nothing

The texts are the rated sentences of VADER (Hutto & Gilbert, 2014; MIT licence), which PyPI has in the source archive of
`vaderSentiment`: film review snippets, sentences of product reviews, tweets and sentences of newspaper editorials, each
with the mean of several people's ratings from -4 to 4, and a lexicon of 7,500 rated words. They are downloaded, and
checked, each time; or given with --archive.

The split is by groups: all sentences of one product review are in the same part, and so are texts that are the same but
for case, spaces and punctuation. Of the films, products and tweets 80 % are trained on, 10 % (validation) choose the epoch
and the settings, 10 % are held out: nothing is chosen by them. They are looked at after the training, with the
weights as they are stored, rounded to f16. Editorials and the lexicon are only trained on.

A text is negative where its mean rating is -0.5 or less, and positive where it is 0.5 or more. What lies between has no
label: it is not in the figures, and is trained on with a target between 0.32 and 0.68.

All random numbers come from one seed and there is one thread: one machine gives the same weights each time. Another
processor may round differently.
"""

import argparse
import dataclasses
import hashlib
import html
import io
import math
import pathlib
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import time

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import DistilBertConfig, DistilBertForSequenceClassification

PACKAGE, VERSION = "vaderSentiment", "3.3.2"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
SOURCES = {
    "films": "movieReviewSnippets_GroundTruth.txt",
    "products": "amazonReviewSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
    "editorials": "nytEditorialSnippets_GroundTruth.txt",
}
JUDGED = ["films", "products", "tweets"]  # of these there are validation and held-out texts
NEUTRAL = 0.5
LABELS = ["negative", "positive"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL))


@dataclasses.dataclass(frozen=True)
class Settings:
    """Chosen by the loss on the validation texts, among a few."""

    seed: int = 20140601
    vocabulary: int = 4000
    width: int = 64
    middle: int = 128
    layers: int = 2
    heads: int = 4
    positions: int = 128
    dropout: float = 0.3
    lexicon: bool = True  # train on the rated words as well
    forget: float = 0.3  # part of the tokens that are masked while training
    joined: float = 0.3  # part of the batches whose texts are joined by twos; the rating is their mean
    sharpness: float = 1.5  # a rating r is trained towards the probability 1 / (1 + exp(-sharpness * r))
    epochs: int = 8
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.3
    average: float = 0.995  # what is kept of the weights' running mean, per step


@dataclasses.dataclass(frozen=True)
class Text:
    source: str
    group: str
    rating: float
    text: str

    @property
    def label(self):
        """0, 1, or None: neither."""
        return None if abs(self.rating) < NEUTRAL else int(self.rating > 0)


# The data.


def archive(given):
    """The bytes of the package's source archive."""
    if given:
        found = pathlib.Path(given).read_bytes()
    else:
        with tempfile.TemporaryDirectory() as folder:
            what = [f"{PACKAGE}=={VERSION}", "--no-deps", "--no-binary", PACKAGE, "--quiet"]
            subprocess.run([sys.executable, "-m", "pip", "download", "--dest", folder, *what], check=True)
            found = next(pathlib.Path(folder).glob("*.tar.gz")).read_bytes()
    if hashlib.sha256(found).hexdigest() != SHA256:
        sys.exit(f"the archive is not {PACKAGE} {VERSION}: its SHA-256 is another one")
    return found


def member(tar, end):
    """The bytes of the file whose path ends so."""
    return tar.extractfile(next(m for m in tar.getmembers() if m.name.endswith(end))).read()


def read(given):
    """All texts, and the lexicon's words."""
    outer = tarfile.open(fileobj=io.BytesIO(archive(given)))
    inner = tarfile.open(fileobj=io.BytesIO(member(outer, "/hutto_ICWSM_2014.tar.gz")))
    texts = []
    for source, name in SOURCES.items():
        for line in member(inner, "/" + name).decode("utf-8").splitlines():
            id, rating, text = line.split("\t")
            # A product review's sentences are 12_1, 12_2, and so on, and an editorial's; the others are single.
            group = f"{source}-{id.split('_')[0]}"
            texts.append(Text(source, group, float(rating), html.unescape(text)))
    words = []
    for line in member(outer, "/vader_lexicon.txt").decode("utf-8").splitlines():
        word, rating = line.split("\t")[:2]
        words.append(Text("lexicon", "lexicon", float(rating), word))
    return texts, words


def split(texts, seed):
    """Training, validation and held-out texts: of each source that is judged 80, 10 and 10 % of its groups."""
    leader = {}

    def find(group):
        while leader.setdefault(group, group) != group:
            group = leader[group]
        return group

    same = {}
    for text in texts:
        plain = re.sub(r"\W+", " ", text.text.lower()).strip()
        leader[find(text.group)] = find(same.setdefault(plain, text.group))
    parts = ([], [], [])
    for source in SOURCES:
        groups = sorted({find(t.group) for t in texts if t.source == source and find(t.group).startswith(source)})
        random.Random(f"{seed} {source}").shuffle(groups)
        tenth = len(groups) // 10 if source in JUDGED else 0
        part = {group: 1 if i < tenth else 2 if i < 2 * tenth else 0 for i, group in enumerate(groups)}
        for text in texts:
            if find(text.group) in part:
                parts[part[find(text.group)]].append(text)
    return parts


# The model.


def tokenizer(texts, settings):
    """WordPiece, lower-cased, as BERT's, learned from the training texts."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=settings.vocabulary, special_tokens=SPECIAL, limit_alphabet=100, show_progress=False
    )
    made.train_from_iterator([t.text for t in texts], trainer)
    # The trainer numbers tokens differently each time; sorted, they have the same numbers.
    learned = SPECIAL + sorted(set(made.get_vocab()) - set(SPECIAL))
    vocabulary = {token: i for i, token in enumerate(learned)}
    made.model = models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return made


def network(settings):
    return DistilBertForSequenceClassification(
        DistilBertConfig(
            vocab_size=settings.vocabulary,
            dim=settings.width,
            hidden_dim=settings.middle,
            n_layers=settings.layers,
            n_heads=settings.heads,
            max_position_embeddings=settings.positions,
            dropout=settings.dropout,
            attention_dropout=settings.dropout,
            seq_classif_dropout=settings.dropout,
            pad_token_id=PAD,
            id2label=dict(enumerate(LABELS)),
            label2id={label: i for i, label in enumerate(LABELS)},
        )
    )


def ids(tokens, texts, settings):
    """Token numbers, cut to what the model has positions for."""
    return [
        found if len(found) <= settings.positions else found[: settings.positions - 1] + [SEP]
        for found in (encoding.ids for encoding in tokens.encode_batch([t.text for t in texts]))
    ]


def padded(rows):
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


@torch.no_grad()
def chances(model, rows):
    """How likely each text is positive."""
    model.eval()
    found = torch.empty(len(rows))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(order), 256):
        some = order[start : start + 256]
        batch = padded([rows[i] for i in some])
        logits = model(input_ids=batch, attention_mask=(batch != PAD).long()).logits
        found[some] = logits.float().softmax(-1)[:, 1]
    return found


def labelled(texts):
    return [text for text in texts if text.label is not None]


def correct(model, tokens, texts, settings):
    """For each labelled text, whether the model is right."""
    texts = labelled(texts)
    said = chances(model, ids(tokens, texts, settings)) >= 0.5
    return [bool(a) == bool(t.label) for a, t in zip(said, texts)]


def mean(values):
    return sum(values) / len(values)


def train(model, tokens, training, validation, settings, say=print):
    """Leaves the model with the averaged weights of the epoch whose loss on the validation texts is the least."""
    judges = labelled(validation)
    judged, truth = ids(tokens, judges, settings), torch.tensor([float(t.label) for t in judges])
    rows = ids(tokens, training, settings)
    ratings = torch.tensor([t.rating for t in training])
    no_decay = [p for p in model.parameters() if p.ndim < 2]
    decay = [p for p in model.parameters() if p.ndim >= 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": settings.decay}, {"params": no_decay, "weight_decay": 0.0}], lr=settings.rate
    )
    steps = settings.epochs * math.ceil(len(rows) / settings.batch)
    warm = steps // 20
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(1, s / steps))))
    )
    shuffle = random.Random(settings.seed)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    best, kept, step = (math.inf, 0.0), None, 0
    for epoch in range(1, settings.epochs + 1):
        model.train()
        started, total = time.time(), 0.0
        order = list(range(len(rows)))
        shuffle.shuffle(order)
        # Texts of like lengths share a batch: within each 50 batches they are sorted.
        wide = settings.batch * 50
        order = [i for s in range(0, len(order), wide) for i in sorted(order[s : s + wide], key=lambda i: len(rows[i]))]
        batches = [order[s : s + settings.batch] for s in range(0, len(order), settings.batch)]
        shuffle.shuffle(batches)
        for some in batches:
            some_rows, rating = [rows[i] for i in some], ratings[some]
            if shuffle.random() < settings.joined:
                other = shuffle.sample(range(len(some)), len(some))
                some_rows = [(a[:-1] + some_rows[b][1:])[: settings.positions] for a, b in zip(some_rows, other)]
                rating = (rating + rating[other]) / 2
            batch = padded(some_rows)
            mask = (batch != PAD).long()
            lost = (torch.rand(batch.shape) < settings.forget) & (batch >= len(SPECIAL))
            lost &= mask.sum(1, keepdim=True) > 6  # a short text keeps all of its tokens
            logits = model(input_ids=batch.masked_fill(lost, MASK), attention_mask=mask).logits
            target = torch.sigmoid(settings.sharpness * rating)
            loss = torch.nn.functional.cross_entropy(logits, torch.stack([1 - target, target], 1))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            keep = min(settings.average, step / (step + 10))
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1 - keep)
            total += loss.item() * len(some)
        now = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(average)
        found = chances(model, judged)
        loss = torch.nn.functional.binary_cross_entropy(found, truth).item()
        accuracy = ((found >= 0.5) == (truth == 1)).float().mean().item()
        seconds = time.time() - started
        say(f"epoch {epoch}: loss {total / len(rows):.4f}; validation: loss {loss:.4f}, {accuracy:.4f} right; {seconds:.0f} s")
        if loss < best[0]:
            best, kept = (loss, accuracy), {name: value.clone() for name, value in average.items()}
        model.load_state_dict(now)
    model.load_state_dict(kept)
    return best[1]


# What it is compared with.


class BagOfWords:
    """Logistic regression on which words a text has; its L2 penalty is the one that does best on the validation texts."""

    def __init__(self, training, validation):
        training = labelled(training)
        self.index = {word: i for i, word in enumerate(sorted({w for t in training for w in self.words(t)}))}
        labels = torch.tensor([float(t.label) for t in training])
        flat, starts = self.bags(training)
        best = -1.0
        for penalty in (0.1, 0.3, 1.0, 3.0, 10.0):
            weights = torch.zeros(len(self.index) + 1, 1, requires_grad=True)
            bias = torch.zeros(1, requires_grad=True)
            optimizer = torch.optim.LBFGS([weights, bias], max_iter=200, line_search_fn="strong_wolfe")

            def loss():
                optimizer.zero_grad()
                logits = torch.nn.functional.embedding_bag(flat, weights, starts, mode="sum")[:, 0] + bias
                cost = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
                cost = cost + penalty / 2 * (weights**2).sum()
                cost.backward()
                return cost

            optimizer.step(loss)
            found = (weights.detach(), bias.detach())
            accuracy = mean(self.correct(validation, found))
            if accuracy > best:
                best, self.fitted, self.penalty = accuracy, found, penalty
        self.best = best

    @staticmethod
    def words(text):
        return set(re.findall(r"\w+(?:'\w+)?|[^\w\s]+", text.text.lower()))

    def bags(self, texts):
        flat, starts = [], []
        for text in texts:
            starts.append(len(flat))
            # The last number, whose weight stays 0, is for texts without any known word.
            flat += sorted(self.index[w] for w in self.words(text) if w in self.index) or [len(self.index)]
        return torch.tensor(flat), torch.tensor(starts)

    def correct(self, texts, fitted=None):
        texts = labelled(texts)
        weights, bias = fitted or self.fitted
        with torch.no_grad():
            logits = torch.nn.functional.embedding_bag(*self.bags(texts)[:1], weights, self.bags(texts)[1], mode="sum")
        return [bool(x >= 0) == bool(t.label) for x, t in zip(logits[:, 0] + bias, texts)]


def save(model, tokens, folder):
    """What `save_pretrained` writes and a reader needs: the config, the weights in f16, the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    (folder / "tokenizer.json").write_text(tokens.to_str(pretty=False) + "\n", encoding="utf-8")


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--archive", help=f"{PACKAGE}-{VERSION}.tar.gz, already downloaded")
    options.add_argument("--out", default=pathlib.Path(__file__).parent / "model", type=pathlib.Path)
    options.add_argument("--validate", action="store_true", help="only train; look at no held-out text, write nothing")
    given = options.parse_args()

    settings = Settings()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(settings.seed)
    texts, words = read(given.archive)
    training, validation, held_out = split(texts, settings.seed)
    print(f"texts: {len(training)} to train on, {len(validation)} for validation, {len(held_out)} held out")
    learned = training + (words if settings.lexicon else [])
    tokens = tokenizer(learned, settings)
    model = network(settings)
    print(f"weights: {sum(p.numel() for p in model.parameters())}")
    best = train(model, tokens, learned, validation, settings)
    baseline = BagOfWords(training, validation)
    richer = BagOfWords(learned, validation)
    print(f"validation: model {best:.4f}, bag of words {baseline.best:.4f}, with the lexicon {richer.best:.4f}")
    if given.validate:
        return

    save(model, tokens, given.out)
    model = DistilBertForSequenceClassification.from_pretrained(given.out, dtype=torch.float32)
    tokens = Tokenizer.from_file(str(given.out / "tokenizer.json"))
    print("held-out texts, weights rounded to f16: n, share of the larger class, bag of words, with the lexicon, model")
    for name, sources in [*((s, [s]) for s in JUDGED), ("all", JUDGED)]:
        some = [t for t in labelled(held_out) if t.source in sources]
        positive = mean([t.label for t in some])
        figures = [max(positive, 1 - positive), mean(baseline.correct(some)), mean(richer.correct(some))]
        figures.append(mean(correct(model, tokens, some, settings)))
        print(f"{name}: {len(some)}", *(f"{figure:.4f}" for figure in figures))


if __name__ == "__main__":
    main()
