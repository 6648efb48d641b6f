# SPDX-License-Identifier: Apache-2.0
"""One network of a plan, to be tried on random numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vesalius.types import Json

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from vesalius.tasks.classify.batch import Image


@dataclass(frozen=True, slots=True)
class Trial:
    """One network of a plan, to be tried.

    Attributes:
        name: of the network.
        build: returns it, with random weights.
        step_loss: the loss of a training step on random numbers, on a device.
        check: one of the calls that make up a validation, on a device.
        checks: how many of them one validation takes.
        finals: the work after training, in validations.
        most: steps beyond which more are pointless.
        optimizer: of the plan.
    """

    name: str
    build: Callable[[], nn.Module]
    step_loss: Callable[[nn.Module, torch.device], Tensor]
    check: Callable[[nn.Module, torch.device], object]
    checks: float
    finals: float
    most: int
    optimizer: Json


def views_of_image(found: Json, decisions: Json) -> int:
    """Return how many views of an image a classifier sees, about."""
    shape = decisions["input"]
    if shape["spatial_dims"] == 3:
        return 1
    volumes = float(found["volumes"] / found["images"])
    return max(1, round(1 + volumes * (int(shape["slices"]) - 1)))


def random_image(decisions: Json, views: int) -> Image:
    """Return one image of a classifier's store, of random numbers."""
    from vesalius.tasks.classify.batch import FACTS, Image

    shape = decisions["input"]
    sides = [shape["size"]] * shape["spatial_dims"]
    values = np.random.default_rng(0).normal(size=(views, shape["channels"], *sides))
    return Image(values.astype(np.float16), (0,) * len(FACTS))
