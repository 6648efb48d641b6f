# SPDX-License-Identifier: Apache-2.0
"""What a run keeps: applied, undone, saved, loaded; what it does not cover is refused by name."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vesalius.errors import NormalizationRefused, RunError, UsageError
from vesalius.normalization import Coverage, Normalizer
from vesalius.normalization.intensity.mad import Mad
from vesalius.normalization.intensity.percentile import Percentile
from vesalius.normalization.intensity.window import Window
from vesalius.normalization.masks import fitting_mask
from vesalius.normalization.method import MODULES, module_of
from vesalius.volume import LabelMap, Volume

sys.path.insert(0, str(Path(__file__).parent))
from heads import head, mr, planted, tissues

CT = np.where(tissues() > 0, head() / 20, -1000).astype(np.int16)
COVERED = Normalizer(
    Mad(),
    {"CT HU": Window(-100, 200, 30, 40)},
    {"CT": Coverage("HU", -1000, 300), "MR": Coverage()},
)


def ct(data=CT, unit: str = "HU") -> Volume:
    return Volume(data[None], np.eye(4), modality="CT", unit=unit)


def test_apply_fits_in_the_mask_of_the_modality() -> None:
    volume = mr(head())
    done = Normalizer().apply(volume)
    mask = fitting_mask(volume).data
    np.testing.assert_array_equal(
        done.data[0], Mad().solve(volume.data[0], mask).apply(volume.data[0])
    )
    assert done.data.dtype == np.float32
    assert done.data[0][mask].std() == pytest.approx(1, abs=1e-4)
    np.testing.assert_array_equal(done.affine, volume.affine)
    assert (done.modality, done.shape) == ("MR", volume.shape)
    assert json.dumps(done.source.metadata["normalization"])


def test_a_given_mask_is_fitted_in() -> None:
    volume, inner = mr(head()), np.zeros((36, 40, 18), bool)
    inner[10:26, 10:30, 4:14] = True
    for given in (inner, LabelMap(inner[None].astype(np.uint8), volume.affine)):
        done = Normalizer().apply(volume, given=given)
        assert done.data[0][inner].std() == pytest.approx(1, abs=1e-4)
    with pytest.raises(UsageError, match="must have the shape"):
        Normalizer().apply(volume, given=inner[:-1])


@pytest.mark.parametrize("name", ["zscore", "robust", "mad-tanh", "mad"])
def test_inverse_brings_the_values_back(name: str) -> None:
    x = planted(head(), tissues() > 0, 0.01, 8.0)
    normalizer = Normalizer(module_of(name).METHOD())
    volume = replace(mr(x), source=replace(mr(x).source, metadata={"kept": 1}))
    done = normalizer.apply(volume)
    back = normalizer.inverse(done)
    assert dict(back.source.metadata) == {"kept": 1}
    (curve,) = done.source.metadata["normalization"]
    low, high = curve.get("low"), curve.get("high")
    expected = x if low is None else np.clip(x, low, high)
    told = x < 2000 if name == "mad-tanh" else np.ones(x.shape, bool)  # outliers saturate it
    np.testing.assert_allclose(back.data[0][told], expected[told], atol=0.02)


def test_inverse_restores_a_constant_channel() -> None:
    volume = Volume(np.stack([head(), np.full((36, 40, 18), 7.0)]), np.eye(4), modality="MR")
    done = Normalizer(module_of("zscore").METHOD()).apply(volume)
    assert (done.data[1] == 0).all()
    np.testing.assert_allclose(Normalizer().inverse(done).data, volume.data, atol=0.02)


def test_inverse_refuses_what_apply_did_not_make() -> None:
    with pytest.raises(UsageError, match="inverse takes an image that apply returned"):
        Normalizer().inverse(mr(head()))


def test_hounsfield_units_keep_their_meaning() -> None:
    shifted = COVERED.apply(ct(CT[:, :, 4:14]))
    whole = COVERED.apply(ct())
    np.testing.assert_array_equal(shifted.data, whole.data[..., 4:14])
    expected = (np.clip(CT.astype(float), -100, 200) - 30) / 40
    np.testing.assert_allclose(whole.data[0], expected, atol=1e-5)
    assert COVERED.method_for(mr(head())) == Mad()


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (
            Volume(CT[None], np.eye(4), modality="US"),
            "the image's modality is US, the run was trained on CT, MR",
        ),
        (
            ct((CT / 20 + 60).astype(np.uint8), unit=""),
            (
                "CT of the training images has values in HU, this image's are in arbitrary units; "
                "convert it, or train on such images"
            ),
        ),
        (
            Volume(head()[None], np.eye(4), modality="MR", unit="mm2/s"),
            (
                "MR of the training images has values in arbitrary units, this image's are in "
                "mm2/s; convert it, or train on such images"
            ),
        ),
        (
            ct(CT + 2000),
            (
                "0% of the image's values lie between -1000 and 300 HU, where those of the "
                "training images lie; check its rescale slope and intercept"
            ),
        ),
    ],
    ids=["modality", "picture", "diffusion", "range"],
)
def test_what_is_not_covered_is_refused_in_words(volume: Volume, words: str) -> None:
    with pytest.raises(NormalizationRefused) as caught:
        COVERED.apply(volume)
    assert caught.value.reason == "not-covered"
    assert str(caught.value) == words


def test_a_file_without_modality_counts_as_the_only_covered_one() -> None:
    unknown = Volume(CT[None], np.eye(4))
    only = replace(COVERED, covers={"CT": Coverage("HU", -1000, 300)})
    done = only.apply(unknown)
    np.testing.assert_array_equal(done.data, COVERED.apply(ct()).data)
    assert done.modality == "CT"
    with pytest.raises(NormalizationRefused, match="check its rescale slope"):
        only.apply(Volume(CT[None] + 2000, np.eye(4), unit="HU"))
    # with several there is no telling which fit it needs
    with pytest.raises(NormalizationRefused, match="names no modality"):
        COVERED.apply(unknown)
    alike = replace(COVERED, fitted={})
    assert alike.apply(unknown).modality == ""  # one method serves all: no need to know


def test_the_steps_before_the_method_are_taken_too() -> None:
    rng = np.random.default_rng(0)
    field = np.exp(0.3 * np.linspace(-1, 1, 40))[:, None, None]
    x = np.where(np.indices((40, 40, 40)).sum(0) % 5 > 1, 700.0, 1000.0) * field
    volume = mr(x + rng.normal(0, 20, x.shape))
    chain = Normalizer(before=("n4",), options={"shrink": 2})
    again = Normalizer.from_json(json.loads(json.dumps(chain.to_json())))
    assert again == chain
    flat, plain = chain.apply(volume).data[0], Normalizer().apply(volume).data[0]
    slope = [abs(np.polyfit(np.arange(40), out.mean(axis=(1, 2)), 1)[0]) for out in (flat, plain)]
    assert slope[0] < 0.25 * slope[1]
    with pytest.raises(UsageError, match="n4 cannot be undone"):
        chain.inverse(chain.apply(volume))


def test_training_images_without_a_modality_cover_any() -> None:
    normalizer = Normalizer(covers={"": Coverage()})
    assert normalizer.apply(mr(head())).data.std() > 0
    assert Normalizer().apply(ct()).data.std() > 0  # nothing was fitted, nothing is refused


def test_several_units_in_training_cover_all_of_them() -> None:
    normalizer = Normalizer(covers={"MR": Coverage(None)})
    for unit in ("", "mm2/s"):
        volume = Volume(head()[None], np.eye(4), modality="MR", unit=unit)
        assert normalizer.apply(volume).data.std() > 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (np.full((1, 4, 4, 4), np.nan), "non-finite"),
        (np.zeros((1, 4, 4, 4)), "constant"),
        (np.zeros((1, 0, 4, 4)), "empty"),
    ],
)
def test_hopeless_images_are_refused(data, reason: str) -> None:
    with pytest.raises(NormalizationRefused) as caught:
        Normalizer().apply(Volume(data, np.eye(4)))
    assert caught.value.reason == reason


def fitted(name: str):
    module = module_of(name)
    if not module.CARD.fitted:
        return module.METHOD()
    fit = module.FIT()
    for seed in (1, 2):
        fit.add(head(seed) / 4, tissues(seed) > 0)
    return fit.finish()


@pytest.mark.parametrize(
    "name", [name for name in MODULES if str(module_of(name).CARD.kind) == "intensity"]
)
def test_saved_and_loaded_it_does_the_same(name: str, tmp_path: Path) -> None:
    normalizer = Normalizer(
        fitted(name), {"CT HU": Window(-100, 200, 30, 40)}, {"MR": Coverage("", None, None)}
    )
    normalizer.save(tmp_path / "normalizer.json")
    loaded = Normalizer.load(tmp_path / "normalizer.json")
    assert loaded == normalizer
    volume = mr(head())
    np.testing.assert_array_equal(loaded.apply(volume).data, normalizer.apply(volume).data)


def test_a_parameter_is_kept() -> None:
    normalizer = Normalizer(Percentile(low=2, high=98))
    assert Normalizer.from_json(json.loads(json.dumps(normalizer.to_json()))) == normalizer
    assert Normalizer.from_json(COVERED.to_json()) == COVERED


def test_what_is_no_normalizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no normalizer"):
        Normalizer.load(tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(RunError, match="is no normalizer"):
        Normalizer.load(tmp_path / "broken.json")
    with pytest.raises(RunError, match="format 2, got 1"):
        Normalizer.from_json({"format": 1})
