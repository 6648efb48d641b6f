# SPDX-License-Identifier: Apache-2.0
"""What training will do again and again, on random numbers of a plan's shapes, for each network.

No image is read: what is measured is the network, its loss, and the augmentation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vesalius.flows.planning.draft import Data
from vesalius.flows.planning.trial import Trial, random_image, views_of_image
from vesalius.types import Array, Json

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from vesalius.tasks.targets import Target

_CASES_AT_ONCE = 16  # of a classifier's validation


def trials(plan: Json, data: Data) -> list[Trial]:
    """Return the trials of a plan, one for each network that it trains."""
    found, decisions = plan["fingerprint"], plan["decisions"]
    train, val = len(data.subset("train")), len(data.subset("val"))
    if plan["task"] == "segment":
        if data.folds:  # all are learned from but those of one's own fold
            val = len(data.folds) // decisions["folds"]
            train = len(data.folds) - val
        return [_segment(found, decisions, train, val)]
    if plan["task"] == "detect":
        return [_detect(found, decisions, train, val)]
    if plan["task"] == "retrieve":
        from vesalius.flows.planning.retrieval_trials import retrieval_trials

        return retrieval_trials(found, decisions, train, val)
    return [_classify(found, decisions, spec, train, val) for spec in decisions["networks"]]


def take_steps(plan: Json, data: Data) -> None:
    """Do one training step of each network of a plan, to see that it can be done."""
    from vesalius.training import device

    fabric = device.start(plan["decisions"]["precision"])
    for trial in trials(plan, data):
        model = fabric.setup_module(trial.build())
        model.train()
        fabric.backward(trial.step_loss(model, fabric.device))


def _segment(found: Json, decisions: Json, train: int, val: int) -> Trial:
    import torch

    from vesalius.tasks.segment.above import labeler
    from vesalius.tasks.segment.fit import CHECKED
    from vesalius.tasks.segment.neighbors import image_channels
    from vesalius.tasks.segment.objective import objective
    from vesalius.tasks.segment.predict import new_model
    from vesalius.tasks.segment.slide import lay_out, quarter_of, slide
    from vesalius.tasks.segment.structures import Structures, answers
    from vesalius.training.augment import Augmentation, augment

    patch, spacing = decisions["patch"], decisions["spacing"]
    channels, classes = decisions["network"]["in_channels"], answers(decisions)
    structures, count = Structures.of(decisions), len(decisions["labels"])
    settings = Augmentation.from_json(decisions["augmentation"])
    rng = np.random.default_rng(0)
    images = torch.randn(decisions["batch"], channels, *patch)
    codes = 2 ** (1 + count) if structures.regions else 1 + count
    labels = torch.randint(0, codes, (decisions["batch"], *patch))
    i, j, k = _on_grid(found, spacing)
    whole = rng.normal(size=(image_channels(decisions), i, j, k)).astype(np.float16)

    def step_loss(model: nn.Module, where: torch.device) -> Tensor:
        x, y = augment(
            images.to(where), settings, rng, labels=labels.to(where), spacing=tuple(spacing)
        )
        assert y is not None  # noqa: S101 - labels were given
        return objective(model(x), y, structures)

    def check(model: nn.Module, where: torch.device) -> None:
        layout = lay_out((i, j, k), decisions, classes=classes, memory=quarter_of(where))
        out = np.zeros((structures.layers, i, j, k), np.uint8)
        labels_of = labeler(out, range(1, 1 + count), layout.shape, regions=structures.regions)
        slide(lambda x: model(x.to(where)), whole, layout, labels_of.take, device=where)

    checked = min(CHECKED, val)
    return Trial(
        decisions["network"]["name"],
        lambda: new_model(decisions, 0),
        step_loss,
        check,
        checks=checked,
        finals=3 * val / max(1, checked),
        most=_most(decisions, train),
        optimizer=decisions["optimizer"],
    )


def _detect(found: Json, decisions: Json, train: int, val: int) -> Trial:
    import torch

    from vesalius.tasks.detect.boxes import Boxes
    from vesalius.tasks.detect.fit import CHECKED
    from vesalius.tasks.detect.predict import find_evidence, new_model
    from vesalius.tasks.detect.targets import detection_loss, make_targets
    from vesalius.training.augment import Augmentation, augment

    settings = Augmentation.from_json(
        {"rotation": 0.0, "scale": 0.0, "shift": 0.0, **decisions["augmentation"]["values"]}
    )
    rng = np.random.default_rng(0)
    network, window = decisions["network"], np.array(decisions["window"])
    images = torch.randn(decisions["batch"], network["in_channels"], *decisions["window"])
    sides = [one["median_side"] / decisions["spacing"][0] for one in found["classes"].values()]
    counts = [max(1, round(one["median_count"])) for one in found["classes"].values()]
    boxes = []
    for _ in range(decisions["batch"]):
        kinds = np.repeat(np.arange(len(counts)), counts)
        middle = rng.uniform(0, window, (len(kinds), 2))
        half = np.repeat(sides, counts)[:, None] / 2
        corners = np.concatenate([middle - half, middle + half], axis=1)
        boxes.append(Boxes(corners, kinds, np.ones(len(kinds))))
    known = np.ones((len(boxes), len(counts)), bool)
    i, j, _ = _on_grid(found, decisions["spacing"])
    whole = rng.normal(size=(network["in_channels"], i, j)).astype(np.float16)
    plain = {**decisions, "mirrored_answers": []}

    def step_loss(model: nn.Module, where: torch.device) -> Tensor:
        x, _ = augment(images.to(where), settings, rng)
        maps = model(x)
        cells = (maps.shape[2], maps.shape[3])
        targets = make_targets(boxes, known, cells, network["options"]["stride"])
        return detection_loss(maps, targets)

    def check(model: nn.Module, where: torch.device) -> None:
        find_evidence(lambda x: model(x.to(where)).float(), whole, plain)

    checked = min(CHECKED, val)
    return Trial(
        network["options"]["encoder"],
        lambda: new_model(decisions, None),
        step_loss,
        check,
        checks=checked,
        finals=8 * val / max(1, checked),
        most=_most(decisions, train),
        optimizer=decisions["optimizer"],
    )


def _classify(found: Json, decisions: Json, spec: Json, train: int, val: int) -> Trial:
    import torch

    from vesalius.tasks.classify.batch import make_batch
    from vesalius.tasks.classify.model import new_model
    from vesalius.tasks.targets import Target
    from vesalius.training.augment import Augmentation, augment

    target = Target.from_json(decisions["target"])
    held = decisions["class_weights"]
    settings = Augmentation.from_json(spec["augmentation"])
    rng = np.random.default_rng(0)
    views, several = views_of_image(found, decisions), max(1, round(found["images_per_case"]))
    drawn = min(several, spec["views"])
    image = random_image(decisions, min(views, max(1, spec["views"] // drawn)))
    whole = random_image(decisions, views)
    at_once = max(1, min(val, _CASES_AT_ONCE))
    truths = target.encode(_truths(target, spec["batch"]))

    def step_loss(model: nn.Module, where: torch.device) -> Tensor:
        batch = make_batch([[image] * drawn] * spec["batch"]).to(where)
        moved, _ = augment(batch.views, settings, rng)
        weights = None if held is None else torch.tensor(held, dtype=torch.float32, device=where)
        truth = torch.as_tensor(truths, device=where)
        logits = model(batch.with_views(moved))
        return target.loss(logits, truth, weights, smoothing=spec["label_smoothing"])

    def check(model: nn.Module, where: torch.device) -> None:
        model(make_batch([[whole] * several] * at_once).to(where))

    return Trial(
        spec["name"],
        lambda: new_model(spec, target.outputs, 0),
        step_loss,
        check,
        checks=val / at_once,
        finals=4,
        most=_most(spec, train),
        optimizer=spec["optimizer"],
    )


def _truths(target: Target, count: int) -> list[str]:
    """Return truths of a target's kind, every class in turn."""
    names = target.classes or (str(target.unit_mean),)
    return [names[place % len(names)] for place in range(count)]


def _on_grid(found: Json, spacing: list[float]) -> tuple[int, int, int]:
    """Return the median image's shape `(i, j, k)` on the plan's grid."""
    old = np.array([*found["median_shape"], 1][:3])
    before = np.array([*found["median_spacing"], 1.0][:3])
    after = np.array([*spacing, *before[len(spacing) :]])
    shape: Array = np.maximum(1, np.round(old * before / after)).astype(int)
    i, j, k = shape.tolist()
    return i, j, k


def _most(decisions: Json, train: int) -> int:
    return max(10, int(decisions["max_epochs"]) * train // int(decisions["batch"]))
