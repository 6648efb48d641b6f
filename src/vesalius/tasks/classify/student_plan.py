# SPDX-License-Identifier: Apache-2.0
"""The networks that may become a mixture's student, and the decisions of their plans.

A student has one network, is asked about one side of an image only, and has no frozen features.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vesalius.tasks.classify import plan as planning
from vesalius.tasks.classify.members import NetworkMember
from vesalius.tasks.classify.model import SetClassifier
from vesalius.tasks.classify.outliers import COMPONENTS
from vesalius.tasks.classify.planned_networks import SMALL
from vesalius.tasks.classify.predict import Mixture
from vesalius.tasks.classify.student import TAUGHT, TEMPERATURE
from vesalius.tasks.run import Run
from vesalius.tasks.targets import Target
from vesalius.types import Json

MAX_EPOCHS = 400  # a teacher's answers do not wear out as labels do
# Model of a plan and channels of its first layer (None: its own), from the most able on.
_PICTURES = (("efficientnet_lite0:imagenet", None),)
_NETWORKS = (
    ("resnet18", 64), ("resnet18", 32), ("resnet10", 64), ("resnet10", 48), ("resnet10", 32),
    ("resnet10", 24), ("resnet10", 16), ("resnet10", 8), ("cnn", 32), ("cnn", 16), ("cnn", 8),
)  # fmt: skip
_RECORDS = 100_000  # bytes of plan, normalizer and trust, about


def candidates(teacher: Run, budget: Json) -> Iterator[Json]:
    """Yield the decisions of each plan that may be a student's, from the most able network on.

    Args:
        teacher: a finished run of classification.
        budget: `{"minutes": m}` or `{"steps": n}`.
    """
    held, found = teacher.decisions, teacher.plan["fingerprint"]
    target = Target.from_json(held["target"])
    shape = held["input"]
    pictures = shape["spatial_dims"] == 2 and shape["size"] > SMALL
    for model, width in (*(_PICTURES if pictures else ()), *_NETWORKS):
        decided = planning.decide(
            found, target, _any_truths(target), model=model, budget=budget, case=held["case"],
            normalize=held["normalization"],
        )  # fmt: skip
        (spec,) = decided["networks"]
        network = {**spec["network"], "in_channels": shape["channels"]}
        if width is not None:
            network["options"] = {**network["options"], "width": width}
        size = min(spec["size"], shape["size"])
        stem = f"{network['name']}-{size}"
        spec = {
            **spec,
            "name": f"{stem}-w{width}" if width is not None else stem,
            "network": network,
            "size": size,
            "facts": held["facts"],
            "mirror": False,
            "max_epochs": MAX_EPOCHS,
        }
        yield {
            **decided,
            "facts": held["facts"],
            "class_weights": held["class_weights"],
            "input": shape,
            "networks": [spec],
            "start": "",
            "operating": held.get("operating", {}),
            "teacher": {"run": teacher.id, "temperature": TEMPERATURE, "share": TAUGHT},
        }


def _any_truths(target: Target) -> list[str]:
    """Return truths for a plan that takes the weights of its classes from elsewhere."""
    return [""] if target.kind == "multilabel" else list(target.classes)


def untrained(decisions: Json) -> tuple[Mixture, int]:
    """Return a student's network with random weights, and what its run will take on disk, bytes."""
    (spec,) = decisions["networks"]
    target = Target.from_json(decisions["target"])
    model = SetClassifier(spec, target.outputs).eval()
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    features = int(model.encoder.features)  # type: ignore[arg-type]  # of every image network
    outliers = 4 * features * (min(COMPONENTS, features) + max(1, len(target.classes)))
    mixture = Mixture([NetworkMember(spec["name"], spec, model, target)], {}, np.ones(1))
    return mixture, weights + outliers + _RECORDS
