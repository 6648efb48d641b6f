# SPDX-License-Identifier: Apache-2.0
"""The MINC preset: a brain with field, ramp and scale comes back to its constant and template."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vesalius import io
from vesalius.errors import NormalizationRefused, UsageError
from vesalius.geometry import resample
from vesalius.normalization.spatial import minc_preset
from vesalius.normalization.spatial.gradient_mask import low_gradient

SPACING = (4.0, 4.0, 4.0)


def phantom() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shape = (40, 36, 20)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    mask = x**2 + y**2 + z**2 < 0.95
    waves = np.sin(6 * x + 1) * np.sin(5 * y) * np.cos(2 * z)
    tissue = np.choose(np.digitize(waves, (-0.3, 0.3)), (300.0, 600.0, 1000.0))
    tissue = np.where(mask, tissue + np.random.default_rng(0).normal(0, 10, shape), 0.0)
    return tissue, mask, np.exp(0.2 * x - 0.15 * y)


def test_scale_does_not_matter_and_the_constant_is_reached() -> None:
    tissue, mask, field = phantom()
    out, record = minc_preset.correct(tissue * field, mask, spacing=SPACING)
    again, _ = minc_preset.correct(tissue * field * 37, mask, spacing=SPACING)
    np.testing.assert_allclose(again, out, rtol=1e-3)
    assert record["bias"]["method"] == "n3"
    assert record["low_gradient"]["voxels"] < mask.sum()
    json.dumps(record, allow_nan=False)
    flat = low_gradient(out * record["inormalize"]["transfer"]["scale"], mask, spacing=SPACING)
    assert np.median(out[flat]) == pytest.approx(1000, rel=1e-2)


def test_every_step_runs_and_brings_the_image_nearer() -> None:
    tissue, mask, field = phantom()
    ramp = 1.05 ** (np.arange(20) - 10)
    values = 7 * tissue * field * ramp
    out, record = minc_preset.correct(
        values, mask, spacing=SPACING, bias="n4", chain="z",
        template=tissue, template_mask=mask, min_voxels=100,
    )  # fmt: skip
    assert set(record) == {
        "method", "bias", "low_gradient", "slice_chain", "inormalize", "polynomial",
    }  # fmt: skip
    before, after = record["polynomial"]["before"], record["polynomial"]["after"]
    assert after["ks"] < 0.5 * before["ks"]
    assert after["kl_symmetric"] < before["kl_symmetric"]
    nearness = [np.corrcoef(x[mask], tissue[mask])[0, 1] for x in (values, out)]
    assert nearness[1] > 0.92 > 0.85 > nearness[0]


def test_a_model_gives_its_level() -> None:
    tissue, mask, _ = phantom()
    out, record = minc_preset.correct(tissue / 9, mask, spacing=SPACING, bias="none", model=tissue)
    assert record["inormalize"]["to"] == "model"
    assert "bias" not in record
    np.testing.assert_allclose(out[mask], tissue[mask], rtol=1e-5)


def test_background_in_the_mask_cannot_invert_the_image() -> None:
    """Without a mask inormalize inverts or explodes intensities; here the step is refused."""
    tissue, mask, _ = phantom()
    noisy = np.where(mask, tissue, np.random.default_rng(0).normal(-20, 1, tissue.shape))
    with pytest.raises(NormalizationRefused) as refused:
        minc_preset.correct(noisy, np.ones_like(mask), spacing=SPACING, bias="none")
    assert refused.value.reason == "reference"


def test_wrong_names_are_refused() -> None:
    tissue, mask, _ = phantom()
    with pytest.raises(UsageError, match="bias"):
        minc_preset.correct(tissue, mask, spacing=SPACING, bias="n5")
    with pytest.raises(UsageError, match="chain"):
        minc_preset.correct(tissue, mask, spacing=SPACING, chain="k")
    with pytest.raises(UsageError, match="ratio"):
        minc_preset.correct(tissue, mask, spacing=SPACING, bias="none", ratio="mode")


def test_a_real_minc_brain(data: Callable[[str], Path]) -> None:
    folder = data("minc/n3")
    brain = io.read(folder / "testing" / "brain.mnc.gz")
    reference = io.read(folder / "testing" / "brain_nu_ref.mnc.gz").data[0]
    average = io.read(folder / "model_data" / "N3" / "average_305_mask_1mm.mnc.gz")
    mask = resample(average, brain.affine, brain.shape).data[0] >= 0.5
    mask &= (brain.data[0] > 0) & (reference > 0)
    out, record = minc_preset.correct(
        brain.data[0], mask, spacing=brain.spacing, template=reference, template_mask=mask
    )
    assert record["polynomial"]["after"]["ks"] < 0.02 < record["polynomial"]["before"]["ks"]
    assert np.corrcoef(out[mask], reference[mask])[0, 1] > 0.98
