# SPDX-License-Identifier: Apache-2.0
"""The twin: one network that sees both images of a pair, trained as a whole.

Bromley et al.: Signature Verification using a "Siamese" Time Delay Neural Network, NIPS 1993.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vesalius.networks import build
from vesalius.networks.memory_format import channels_innermost
from vesalius.networks.pretrained import INPUT_SCALE, load_pretrained
from vesalius.tasks.frozen import VIEWS_AT_ONCE, Viewed
from vesalius.tasks.retrieve.learning import image_loss, image_scores
from vesalius.tasks.retrieve.pairs import Pairs
from vesalius.tasks.retrieve.prepared import Prepared
from vesalius.tasks.retrieve.towers import Projection
from vesalius.tasks.views import resize
from vesalius.training import budget
from vesalius.training.augment import Augmentation, augment
from vesalius.training.loop import Outcome, Settings, StepLoss, Validate, fit
from vesalius.training.order import step_random
from vesalius.types import Array, Json, Progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_MOMENTUM = 0.1  # of batch normalization's running statistics: few steps, see `classify.model`
VIEWS = 4  # of one image in one step
JUDGED = 400  # validation images that the loop looks at


class TwinEncoder(nn.Module):
    """A network of the registry as an encoder that is trained."""

    def __init__(self, spec: Json, *, pretrained: bool = True) -> None:
        """Build it from the plan's entry; with `pretrained`, begin with weights that it names."""
        super().__init__()
        network = spec["network"]
        channels = network["in_channels"]
        self.encoder = build(
            network["name"], spatial_dims=2, in_channels=channels, out_channels=1,
            **network["options"],
        )  # fmt: skip
        for module in self.encoder.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = _MOMENTUM
        known = network["weights"] == "imagenet"
        if known and pretrained:
            load_pretrained(self.encoder, network["name"], in_channels=channels)
        self.scale = INPUT_SCALE if known else 1.0
        self.size, self.mirror = int(spec["size"]), bool(spec["mirror"])
        self.features = int(self.encoder.features)  # type: ignore[arg-type]  # of every one
        self.near = channels_innermost(self.encoder)

    def forward(self, views: Tensor) -> Tensor:
        """Return `(M, features)` of views `(M, C, i, j)`."""
        found: Tensor = self.encoder.encode(self._sized(views))  # type: ignore[operator]
        return found.float()

    def maps(self, views: Tensor) -> list[Tensor]:
        """Return the last maps, `(M, channels, i, j)`, whose means are the features."""
        with torch.inference_mode():
            return [self.encoder.maps(self._sized(views)).float()]  # type: ignore[operator]

    def images(self, images: Sequence[Viewed]) -> Tensor:
        """Return `(images, features)`, the mean over views and, where harmless, their mirror."""
        where = next(self.parameters()).device
        views = np.concatenate([image.views for image in images])
        parts = []
        with torch.inference_mode():
            for start in range(0, len(views), VIEWS_AT_ONCE):
                some = views[start : start + VIEWS_AT_ONCE].astype(np.float32)
                part = torch.from_numpy(some).to(where)
                found = self(part)
                if self.mirror:
                    found = (found + self(part.flip(2))) / 2
                parts.append(found)
        counts = [len(image.views) for image in images]
        split = torch.split(torch.cat(parts), counts)
        return torch.stack([part.mean(0) for part in split])

    def _sized(self, views: Tensor) -> Tensor:
        sized = resize(views.float(), self.size) * self.scale  # mixed precision hands in halves
        return sized.to(memory_format=torch.channels_last) if self.near else sized


class Twin(nn.Module):
    """Encoder and the projection at its end."""

    def __init__(self, spec: Json, *, pretrained: bool = True) -> None:
        super().__init__()
        self.encoder = TwinEncoder(spec, pretrained=pretrained)
        self.head = Projection(self.encoder.features, spec["dimension"])

    def forward(self, views: Tensor) -> Tensor:
        """Return `(M, dimension)` of length one."""
        return functional.normalize(self.head(self.encoder(views)).float(), dim=1)


def new_twin(spec: Json, seed: int) -> Twin:
    """Return a twin with weights drawn from `seed`, or those that the plan names."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Twin(spec)


def twin_vectors(twin: Twin, prepared: Prepared, places: Sequence[int]) -> Array:
    """Return `(n, dimension)` of length one of some images."""
    parts = []
    for start in range(0, len(places), VIEWS_AT_ONCE):
        images = [prepared.image(place) for place in places[start : start + VIEWS_AT_ONCE]]
        with torch.inference_mode():
            found = twin.head(twin.encoder.images(images))
            parts.append(functional.normalize(found.float(), dim=1).cpu().numpy())
    return np.concatenate(parts)


def train_twin(
    spec: Json,
    prepared: Prepared,
    pairs: Pairs,
    places: tuple[Array, Array],
    decisions: Json,
    measured: Json,
    *,
    seed: int,
    folder: Path,
    fabric: Fabric,
    progress: Progress | None,
) -> tuple[Twin, Outcome]:
    """Train, or go on after an interruption; return the twin of the best validation.

    Args:
        spec: of the plan.
        prepared: all images, and `pairs` of all of them.
        pairs: what belongs together.
        places: of training and of validation images.
        decisions: of the plan.
        measured: steps, see `measure_twin`.
        seed: of weights, batches and augmentation.
        folder: of checkpoints and log.
        fabric: device and precision.
        progress: called as `progress(stage, done, total)`.
    """
    twin = new_twin(spec, seed)
    outcome = fit(
        twin,
        step_loss=_step_loss(spec, prepared, pairs, places[0], decisions, seed, fabric),
        validate=_validation(prepared, pairs, places[1]),
        settings=Settings.from_plan(spec["optimizer"], measured, budget.VALIDATIONS),
        folder=folder,
        fabric=fabric,
        progress=progress,
    )
    return twin.eval(), outcome


def measure_twin(
    spec: Json,
    prepared: Prepared,
    pairs: Pairs,
    places: tuple[Array, Array],
    decisions: Json,
    *,
    seed: int,
    fabric: Fabric,
    started: float,
) -> Json:
    """Return the steps of a twin: as asked, or as many as fit into the minutes.

    Raises:
        BudgetError: less than ten fit.
    """
    return budget.measure_steps(
        decisions["budget"],
        new_twin(spec, seed),
        step_loss=_step_loss(spec, prepared, pairs, places[0], decisions, seed, fabric),
        validate=_validation(prepared, pairs, places[1]),
        fabric=fabric,
        started=started,
        finals=2 + (len(places[0]) + len(places[1])) / min(len(places[1]), JUDGED),
        most=max(10, spec["max_epochs"] * len(places[0]) // spec["batch"]),
    )


def _step_loss(
    spec: Json,
    prepared: Prepared,
    pairs: Pairs,
    train: Array,
    decisions: Json,
    seed: int,
    fabric: Fabric,
) -> StepLoss:
    settings = Augmentation.from_json(spec["augmentation"])
    own = pairs.some(train)

    def step_loss(model: nn.Module, step: int) -> Tensor:
        rng = step_random(seed, step)
        chosen = own.draw(rng, spec["batch"])
        views, counts = [], []
        for place in train[chosen]:
            held = prepared.image(int(place)).views
            if len(held) > VIEWS:
                held = held[np.sort(rng.choice(len(held), VIEWS, replace=False))]
            views.append(held)
            counts.append(len(held))
        batch = torch.from_numpy(np.concatenate(views).astype(np.float32)).to(fabric.device)
        moved, _ = augment(batch, settings, rng)
        found = model(moved)
        split = torch.split(found, counts)
        vectors = functional.normalize(torch.stack([part.mean(0) for part in split]), dim=1)
        return image_loss(vectors, own, chosen, decisions["objective"])

    return step_loss


def _validation(prepared: Prepared, pairs: Pairs, val: Array) -> Validate:
    places = [int(place) for place in val[:JUDGED]]
    own = pairs.some(np.array(places))

    def validate(model: nn.Module) -> dict[str, float]:
        inner: Any = getattr(model, "module", model)  # a Twin
        vectors = twin_vectors(inner, prepared, places)
        scores = image_scores(vectors, np.arange(len(places)), own)
        return {"score": float(np.mean(scores))}

    return validate
