# SPDX-License-Identifier: Apache-2.0
"""The networks that may become a segmenter's student, and the decisions of their plans.

A student is one plain U-Net on its teacher's grid and patch, with fewer channels; it has no folds
and no locator.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn

from vesalius.tasks.run import Run
from vesalius.tasks.segment.predict import new_model
from vesalius.tasks.segment.student import SHARE
from vesalius.types import Json

_FIRST = (32, 24, 16, 12, 8, 6, 4)  # channels of the finest level, from the most able on
_WIDEST = 256
_MOST_LEVELS, _LEAST_EDGE = 5, 4
_RECORDS = 100_000  # bytes of plan, normalizer and quality, about


def candidates(teacher: Run, budget: Json) -> Iterator[Json]:
    """Yield the decisions of each plan that may be a student's, from the most able network on.

    Args:
        teacher: a finished run of segmentation.
        budget: `{"minutes": m}` or `{"steps": n}`.
    """
    held = teacher.decisions
    strides, kernels = _levels(held)
    for first in _FIRST:
        widths = [min(_WIDEST, first * 2**level) for level in range(len(strides))]
        network = {
            "name": "unet",
            "spatial_dims": held["network"]["spatial_dims"],
            "in_channels": held["network"]["in_channels"],
            "weights": "random",
            "options": {
                "widths": widths, "strides": strides, "kernels": kernels, "deep_supervision": True,
            },
        }  # fmt: skip
        yield {
            **held,
            "network": network,
            "folds": 1,
            "locator": None,
            "start": "",
            "budget": budget,
            "teacher": {"run": teacher.id, "share": SHARE},
        }


def untrained(decisions: Json) -> tuple[nn.Module, int]:
    """Return a student's network with random weights, and what its run will take on disk, bytes."""
    model = new_model(decisions, 0).eval()
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    return model, weights + _RECORDS


def _levels(decisions: Json) -> tuple[list[list[int]], list[list[int]]]:
    """Return strides and kernels of a U-Net: the teacher's own, or halving what can be halved."""
    options = decisions["network"]["options"]
    if "strides" in options:
        return options["strides"], options["kernels"]
    patch = list(decisions["patch"])
    strides = [[1] * len(patch)]
    while len(strides) < _MOST_LEVELS:
        fall = [math.prod(step[axis] for step in strides) for axis in range(len(patch))]
        if any(n % (2 * f) or n // (2 * f) < _LEAST_EDGE for n, f in zip(patch, fall, strict=True)):
            break
        strides.append([2] * len(patch))
    return strides, [[3] * len(patch) for _ in strides]
