# SPDX-License-Identifier: Apache-2.0
"""The memory of training is reckoned before it, and the patch is chosen by it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import BudgetError
from vesalius.tasks.segment.footprint import sums_bytes, training_bytes
from vesalius.tasks.segment.plan import decide
from vesalius.tasks.segment.slide import quarter_of

FOUND = {
    "spatial_dims": 3, "channels": 1, "modalities": {"MR": 9}, "labels": {"1": "a", "2": "b"},
    "overlaps": [], "shares": {"1": 0.1, "2": 0.1}, "median_shape": [96, 96, 64],
    "median_spacing": [1.0, 1.0, 1.0], "fine_spacing": [1.0, 1.0, 1.0],
}  # fmt: skip


def plan(**more):
    return decide({**FOUND, **more.pop("found", {})}, model="auto", budget={"steps": 1}, **more)


def test_it_grows_with_batch_patch_and_classes() -> None:
    base = plan()
    least = training_bytes(base)
    twice = training_bytes(base | {"batch": 2 * base["batch"]})
    thrice = training_bytes(base | {"batch": 3 * base["batch"]})
    assert thrice - twice == pytest.approx(twice - least, rel=0.01)
    assert training_bytes(base | {"patch": [2 * n for n in base["patch"]]}) > 4 * (twice - least)
    many = {str(n): f"s{n}" for n in range(1, 40)}
    assert training_bytes(plan(found={"labels": many})) > least + (50 << 20)


@settings(max_examples=4, deadline=None)
@given(share=st.floats(0.8, 1.2))
def test_patch_and_batch_shrink_until_it_fits(share: float) -> None:
    whole = plan()
    allowed = int(share * training_bytes(whole))
    try:
        fitted = plan(memory=allowed)
    except BudgetError:
        assert share < 0.9
        return
    assert training_bytes(fitted) <= allowed
    assert fitted["memory"] == allowed
    assert np.prod(fitted["patch"]) <= np.prod(whole["patch"])
    strides = np.prod(fitted["network"]["options"]["strides"], axis=0)
    assert (np.array(fitted["patch"]) % strides == 0).all()
    if share >= 1:
        assert fitted == {**whole, "memory": allowed}


@pytest.mark.parametrize("model", ["unet", "resenc-unet", "light-unet", "fcn"])
def test_every_network_is_reckoned(model: str) -> None:
    found = {**FOUND, "spatial_dims": 2, "median_shape": [128, 128, 1]}
    decisions = decide(found, model=model, budget={"steps": 1})
    assert training_bytes(decisions) > 800 << 20


def test_what_cannot_fit_is_refused_with_what_it_takes() -> None:
    with pytest.raises(BudgetError, match=r"at least 0\.\d\d GB, with patches of 8x8x8 voxels"):
        plan(memory=10 << 20)


def test_sums_of_windows_keep_to_a_quarter_of_it() -> None:
    device = torch.device("cpu")
    assert sums_bytes({"memory": 4 << 20}, device) == 1 << 20
    assert sums_bytes({"memory": None}, device) == quarter_of(device)
    assert sums_bytes({"memory": 1 << 60}, device) == quarter_of(device)
