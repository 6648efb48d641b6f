# SPDX-License-Identifier: Apache-2.0
"""Targets of every kind, and embedded cases whose truth their features tell."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported

import numpy as np
import torch

from vesalius.tasks.classify.batch import Image
from vesalius.tasks.classify.heads import Embedded
from vesalius.tasks.targets import Target

TARGETS = {
    "binary": Target("answer", "binary", ("no", "yes")),
    "multiclass": Target("answer", "multiclass", ("a", "b", "c")),
    "multilabel": Target("answer", "multilabel", ("edema", "nodule")),
    "ordinal": Target("answer", "ordinal", ("low", "mid", "high")),
    "regression": Target("answer", "regression", (), unit_mean=10.0, unit_sd=2.0),
}
FEATURES = 16  # the first half tells one number of the case, the second half another
FACTS = (3, 2, 0)  # known modalities, planes, scanners
POOLINGS = ("mean", "max", "attention", "transformer")
HEADS = (
    {"head": "knn", "pooling": "mean", "k": 5},
    *(
        {"head": "logistic", "pooling": pooling, "penalty": 0.01}
        for pooling in ("mean", "max", "mean+max")
    ),
    *({"head": "mlp", "pooling": pooling, "dropout": 0.2} for pooling in POOLINGS),
)


def name_of(spec: dict) -> str:
    """Return a head's name for a test."""
    return f"{spec['head']}-{spec['pooling']}"


def sets(lengths: list[int], seed: int) -> Embedded:
    """Return cases of random images whose facts are sometimes unknown (code 0)."""
    rng = np.random.default_rng(seed)
    count = sum(lengths)
    told = np.repeat(rng.normal(size=(len(lengths), 2)), FEATURES // 2, axis=1)
    items = rng.normal(0, 0.5, (count, FEATURES)) + np.repeat(told, lengths, axis=0)
    facts = np.stack([rng.integers(0, known + 1, count) for known in FACTS], axis=1)
    return Embedded(
        torch.tensor(items, dtype=torch.float32), torch.from_numpy(facts), tuple(lengths)
    )


def truths(cases: Embedded, target: Target) -> list[str]:
    """Return what the two numbers of each case say."""
    half = FEATURES // 2
    parts = cases.items.split(list(cases.lengths))
    first = [float(part[:, :half].mean()) for part in parts]
    second = [float(part[:, half:].mean()) for part in parts]
    if target.kind == "regression":
        return [repr(10 + 2 * value) for value in first]
    if target.kind == "multilabel":
        said = []
        for row, values in enumerate(zip(first, second, strict=True)):
            marks = ["?" if (row + place) % 7 == 0 else "" for place in range(2)]
            held = [v > 0 or bool(m) for v, m in zip(values, marks, strict=True)]
            names = [m + n for m, n in zip(marks, target.classes, strict=True)]
            said.append("; ".join(n for n, there in zip(names, held, strict=True) if there))
        return said
    bounds = {2: [0.0], 3: [-0.4, 0.4]}[len(target.classes)]
    return [target.classes[int(np.digitize(value, bounds))] for value in first]


def images(lengths: list[int], seed: int, *, dims: int = 2, side: int = 12) -> list[list[Image]]:
    """Return cases of images, each with one to three views, and facts of `FACTS` or unknown."""
    rng = np.random.default_rng(seed)

    def one() -> Image:
        views = rng.normal(size=(int(rng.integers(1, 4)), 1, *[side] * dims))
        facts = tuple(int(rng.integers(0, known + 1)) for known in FACTS)
        return Image(views.astype(np.float16), facts)

    return [[one() for _ in range(length)] for length in lengths]
