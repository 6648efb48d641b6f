# SPDX-License-Identifier: Apache-2.0
"""Voxels that are to be ignored: no patch is centered on them, and validation passes them over."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vesalius.normalization import Normalizer
from vesalius.tasks.cases import segmentation_cases
from vesalius.tasks.segment.choice import choose
from vesalius.tasks.segment.fit import validation_of
from vesalius.tasks.segment.patches import draw, prepare
from vesalius.volume import LabelMap, Volume

SHAPE = (20, 18, 16)


@pytest.fixture(params=[False, True], ids=["classes", "regions"])
def decisions(request) -> dict:
    labels = "whole=1+2,core=2" if request.param else "edge=1,core=2"
    return {
        **choose({"1": "a", "2": "b", "3": "unknown"}, labels=labels, ignore="unknown"),
        "network": {"in_channels": 1}, "color": False, "orientation": "RAS",
        "spacing": [1.0, 1.0, 1.0], "patch": [5, 5, 5], "overlap": 0.5, "forced_foreground": 1.0,
    }  # fmt: skip


@pytest.fixture
def mask() -> np.ndarray:
    """A structure whose one half is overlaid by the label to be ignored, in a second layer."""
    data = np.zeros((2, *SHAPE), np.uint8)
    data[0, 4:12, 4:12, 4:12] = 1
    data[0, 6:9, 6:9, 6:9] = 2
    data[1, :, :, 8:] = 3
    return data


def prepared_of(memory, mask: np.ndarray, decisions: dict, folder):
    values = np.random.default_rng(0).normal(100, 20, (1, *SHAPE)).astype(np.float32)
    cohort = memory.of(
        [{"volume": Volume(values, np.eye(4)), "mask": LabelMap(mask, np.eye(4)), "patient": "p"}]
    )
    cases = list(segmentation_cases(cohort).cases)
    return prepare(folder, cohort, cases, decisions, Normalizer()), cases[0].key


def test_patches_are_centered_on_voxels_that_are_known(memory, mask, decisions, tmp_path) -> None:
    prepared, key = prepared_of(memory, mask, decisions, tmp_path)
    assert (prepared.spots(key)[:, 3] < 8).all()
    rng = np.random.default_rng(0)
    _, codes = draw(prepared, [key] * 30, decisions, 0, rng)
    centers = codes[:, 2, 2, 2]
    assert not np.isin(centers, (1, 255) if decisions["regions"] else (255,)).any()
    assert (centers > 0).all()


def test_validation_counts_known_voxels_alone(memory, mask, decisions, tmp_path) -> None:
    prepared, key = prepared_of(memory, mask, decisions, tmp_path)
    validate = validation_of(decisions, prepared, [key], torch.device("cpu"))

    def everywhere(x: torch.Tensor) -> torch.Tensor:
        """Answer the first structure in every voxel."""
        high = torch.full_like(x, 9.0)
        return torch.cat([high, -high] if decisions["regions"] else [-high, high, -high], 1)

    scores = validate(everywhere)
    known = np.prod(SHAPE) // 2
    truth = (mask[0] > 0) if decisions["regions"] else (mask[0] == 1)
    first = decisions["labels"][0]
    inside = np.count_nonzero(truth[..., :8])
    assert scores[f"dice_{first}"] == pytest.approx(2 * inside / (inside + known))
    assert scores["dice_core"] == 0
