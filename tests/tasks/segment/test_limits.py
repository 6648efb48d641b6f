# SPDX-License-Identifier: Apache-2.0
"""More minutes, more threads: never a smaller patch, and the whole image in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vesalius.tasks.segment.limits import patch_limit
from vesalius.tasks.segment.plan import decide

FOUND = {
    "spatial_dims": 2, "channels": 1, "modalities": {"MR": 9}, "labels": {"1": "ventricle"},
    "median_shape": [256, 256, 1], "median_spacing": [1.0, 1.0, 1.0],
    "fine_spacing": [1.0, 1.0, 1.0],
}  # fmt: skip


@given(st.floats(0.1, 1e4), st.floats(1, 10), st.integers(1, 64), st.integers(1, 8))
def test_more_time_never_gives_a_coarser_image(minutes, longer, threads, more) -> None:
    def limit(minutes: float, threads: int) -> int:
        return patch_limit(2, {"minutes": minutes}, large=False, threads=threads)[0]

    assert limit(minutes, threads) <= limit(minutes * longer, threads)
    assert limit(minutes, threads) <= limit(minutes, threads * more)
    assert limit(minutes, threads) >= 2**15
    assert patch_limit(3, {"minutes": minutes}, large=False, threads=threads) == (2**17, 24)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the rule is for CPUs")
def test_a_plan_of_few_minutes_sees_a_coarse_image_and_one_of_many_its_own(monkeypatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    hasty, calm = (decide(FOUND, model="auto", budget={"minutes": m}) for m in (3, 15))
    assert calm["spacing"] == [1.0, 1.0]
    assert calm["patch"] == [256, 256]
    assert hasty["spacing"][0] > 1.3
    for plan in (hasty, calm):
        assert (np.array(plan["patch"]) * plan["spacing"] >= 250).all()
    few, many = (decide(FOUND, model="auto", budget={"steps": n}) for n in (100, 4000))
    assert few["spacing"] == hasty["spacing"]
    assert many["spacing"] == calm["spacing"]
