# SPDX-License-Identifier: Apache-2.0
"""Voxels as a table: one grid or a refusal, inside the mask or unchanged."""

from __future__ import annotations

import numpy as np
import pytest

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.table.co_registered import apply_voxels, voxel_rows
from vesalius.normalization.table.combat import Combat
from vesalius.volume import Volume


def volumes(n: int = 8) -> tuple[list[Volume], list[str]]:
    rng = np.random.default_rng(0)
    sites = ["a", "b"] * (n // 2)
    data = [rng.normal(100 + 40 * (site == "b"), 10, (1, 4, 5, 3)) for site in sites]
    return [Volume(one, np.diag([2.0, 2, 2, 1]), modality="MR") for one in data], sites


def test_sites_meet_inside_the_mask_and_nothing_moves_outside() -> None:
    images, sites = volumes()
    mask = np.zeros((4, 5, 3), bool)
    mask[1:3] = True
    fitted = Combat.fit(voxel_rows(images, mask), sites, prior="none")
    out = apply_voxels(fitted, images, sites, mask=mask)
    means = {site: np.mean([one.data[0][mask] for one in out[k::2]]) for k, site in enumerate("ab")}
    assert means["a"] == pytest.approx(means["b"], abs=1e-3)
    for before, after in zip(images, out, strict=True):
        np.testing.assert_array_equal(after.data[0][~mask], before.data[0][~mask].astype("f4"))
        assert (after.modality, after.data.dtype) == ("MR", np.float32)
        np.testing.assert_array_equal(after.affine, before.affine)


def test_whole_volumes_give_what_the_table_gives() -> None:
    images, sites = volumes()
    rows = voxel_rows(images)
    assert rows.shape == (8, 60)
    fitted = Combat.fit(rows, sites)
    out = apply_voxels(fitted, images, sites)
    np.testing.assert_allclose(voxel_rows(out), fitted.apply(rows, sites), rtol=1e-6)


def test_another_grid_is_refused() -> None:
    images, sites = volumes()
    fitted = Combat.fit(voxel_rows(images), sites)
    moved = images[0].affine.copy()
    moved[0, 3] = 1.0
    for stranger in (
        Volume(images[0].data, moved),
        Volume(np.zeros((1, 4, 5, 4)), images[0].affine),
    ):
        with pytest.raises(NormalizationRefused, match="register and resample") as refused:
            apply_voxels(fitted, [*images[:-1], stranger], sites)
        assert refused.value.reason == "not-covered"


def test_wrong_calls_are_named() -> None:
    images, _ = volumes()
    with pytest.raises(UsageError, match="at least one volume"):
        voxel_rows([])
    with pytest.raises(UsageError, match="volume 0 has 2"):
        voxel_rows([Volume(np.zeros((2, 4, 5, 3)), np.eye(4))])
    with pytest.raises(UsageError, match=r"Boolean \(4, 5, 3\)"):
        voxel_rows(images, np.zeros((4, 5), bool))
