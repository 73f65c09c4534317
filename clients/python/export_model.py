"""Write a Milena model folder (config.json, model.safetensors) from a PyTorch or scikit-learn model.

    pip install numpy safetensors

From scikit-learn: MLPClassifier, MLPRegressor, LogisticRegression, LinearRegression and the like.

    scaler = StandardScaler().fit(X)                     # columns: ln(1 + amount), hour
    model = MLPClassifier(hidden_layer_sizes=(32, 16)).fit(scaler.transform(X), y)
    inputs = [{"path": "$.amount", "transform": "log1p", "mean": scaler.mean_[0], "std": scaler.scale_[0]},
              {"path": "$.hour", "mean": scaler.mean_[1], "std": scaler.scale_[1]}]
    export_model("models/fraud", model, inputs, labels=["ok", "fraud"])

From PyTorch: an nn.Sequential of nn.Linear with one kind of activation between them. With labels it
classifies (two labels on one output mean a sigmoid), without it gives a value.

    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 1))
    export_model("models/fraud", model, inputs, labels=["ok", "fraud"])

The inputs are the model's columns in order, as broker and documentation describe them: a number with
"transform" ("log1p"), "mean", "std" and "default", or a text with "one_of", which is one column for
each text listed. Then, in milena.toml:

    [[model]]
    name = "fraud"
    source = "models/fraud"
"""

import json
import os

import numpy as np
from safetensors.numpy import save_file

ACTIVATIONS = ("relu", "tanh", "gelu", "silu", "sigmoid")


def export_model(folder, model, inputs, labels=None):
    """Write `model` to `folder`; `labels` name the classes of a classifier, in the model's order."""
    layers, activation = _from_sklearn(model) if hasattr(model, "n_features_in_") else _from_torch(model)
    card = {"model_type": "mlp" if len(layers) > 1 else "linear", "task": "classify" if labels else "regress",
            "inputs": inputs, "output": len(layers[-1][1])}
    if labels:
        card["labels"] = [str(label) for label in labels]
    if len(layers) > 1:
        card |= {"hidden": [len(bias) for _, bias in layers[:-1]], "activation": activation}
    os.makedirs(folder, exist_ok=True)
    save_file({f"layers.{i}.{name}": np.ascontiguousarray(values, dtype=np.float32)
               for i, layer in enumerate(layers) for name, values in zip(("weight", "bias"), layer)},
              os.path.join(folder, "model.safetensors"))
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(card, file, indent=2, default=float, allow_nan=False)


def _from_sklearn(model):
    if hasattr(model, "coefs_"):  # a multilayer perceptron; its weights are [in, out]
        activation = {"logistic": "sigmoid"}.get(model.activation, model.activation)
        return [(w.T, b) for w, b in zip(model.coefs_, model.intercepts_)], _known(activation)
    return [(np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_))], None


def _from_torch(model):
    layers, activations = [], set()
    for module in [m for m in model.modules() if not list(m.children())]:
        kind = type(module).__name__.lower()
        if kind == "linear":
            weight = module.weight.detach().cpu().numpy()
            bias = np.zeros(len(weight)) if module.bias is None else module.bias.detach().cpu().numpy()
            layers.append((weight, bias))
        elif kind not in ("dropout", "flatten", "identity"):
            activations.add((len(layers), kind, getattr(module, "approximate", "none")))
    # After the last layer Milena itself applies the sigmoid or the softmax that the labels ask for.
    between = {(kind, how) for at, kind, how in activations if at < len(layers)}
    after = {kind for at, kind, _ in activations if at == len(layers)}
    if not layers or after - {"sigmoid", "softmax"}:
        raise ValueError(f"the model does not end in a Linear layer: {sorted(after)}")
    if len(layers) == 1 and not between:
        return layers, None
    if {at for at, _, _ in activations if at < len(layers)} != set(range(1, len(layers))):
        raise ValueError("there must be an activation between each two Linear layers")
    if len(between) != 1 or next(iter(between))[1] != "none":
        raise ValueError(f"one kind of activation is served, and of GELU the exact one: {sorted(between)}")
    return layers, _known(next(iter(between))[0])


def _known(activation):
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r} is not one of {', '.join(ACTIVATIONS)}")
    return activation
