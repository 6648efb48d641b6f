# SPDX-License-Identifier: Apache-2.0
"""Stained slides, what all three methods promise: verdicts, batch = one by one, records."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import NormalizationRefused, RunError, UsageError
from vesalius.normalization.stain import macenko, reinhard, tiles, vahadane

REINHARD = reinhard.Reinhard((70.0, 20.0, -8.0), (14.0, 9.0, 6.0))
TARGETS = [macenko.Macenko(), REINHARD, vahadane.Vahadane()]
each = pytest.mark.parametrize("target", TARGETS, ids=lambda one: one.card.name)


def tile(seed: int, shape: tuple[int, int] = (48, 40)) -> np.ndarray:
    """Return a tile of two stains on glass (3, i, j), uint8."""
    rng = np.random.default_rng(seed)
    amounts = rng.gamma(0.8, 0.5, (2, *shape)) * (rng.uniform(size=(2, *shape)) < 0.7)
    vectors = np.array(macenko.REFERENCE) + rng.normal(0, 0.03, (2, 3))
    density = np.tensordot((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T, amounts, 1)
    return np.clip(np.rint(240 * np.exp(-density) - 1), 0, 255).astype(np.uint8)


def blank(seed: int = 0, shape: tuple[int, int] = (48, 40)) -> np.ndarray:
    return np.random.default_rng(seed).integers(236, 246, (3, *shape)).astype(np.uint8)


@each
@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 99), min_size=1, max_size=4), st.booleans())
def test_a_batch_gives_what_its_images_give_one_by_one(target, seeds, whole) -> None:
    images = np.stack([tile(seed) for seed in seeds]).astype(np.uint8 if whole else np.float64)
    kept = images.copy()
    together, records = target.normalize(images)
    alone = [target.normalize(image) for image in images]
    assert (together == np.stack([one for one, _ in alone])).all()
    assert records == [record for _, (record,) in alone]
    assert together.dtype == (np.uint8 if whole else np.float32)
    assert (images == kept).all()


@each
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99))
def test_where_a_pixel_lies_does_not_matter(target, seed) -> None:
    image = tile(seed).astype(np.float64)
    order = np.random.default_rng(seed).permutation(48 * 40)
    shuffled = image.reshape(3, -1)[:, order].reshape(image.shape)
    out = target.normalize(image)[0].reshape(3, -1)[:, order]
    # Vahadane estimates from every n-th pixel once there are many: here it takes them all
    np.testing.assert_allclose(target.normalize(shuffled)[0].reshape(3, -1), out, atol=0.05)


@each
def test_hopeless_tiles_stay_as_they_are_and_the_others_do_not_notice(target) -> None:
    nan = tile(1).astype(np.float64)
    nan[0, 3, 4] = np.nan
    flat = np.full((3, 48, 40), 200.0) - np.array([30.0, 90.0, 20.0])[:, None, None]
    images = np.stack([tile(0), blank(), flat, nan, tile(2)]).astype(np.float64)
    out, records = target.normalize(images)
    assert [one.reason for one in records] == ["", "blank-tile", "constant", "non-finite", ""]
    np.testing.assert_array_equal(out[1:4], images[1:4].astype(np.float32))
    for good in (0, 4):
        assert (out[good] == target.normalize(images[good])[0]).all()
        assert np.isfinite(out[good]).all()
    for bad in (1, 2, 3):
        with pytest.raises(NormalizationRefused) as refused:
            target.normalize(images[bad])
        assert refused.value.reason == records[bad].reason
        assert str(refused.value) == records[bad].message


@each
def test_given_mask_alone_decides_the_estimate(target) -> None:
    image = tile(3)
    mask = np.zeros(image.shape[1:], bool)
    mask[:30] = True
    spoiled = image.copy()
    spoiled[:, 30:] = 5  # a pen mark outside the mask
    found = [target.normalize(one, mask)[1][0].found for one in (image, spoiled)]
    for name, value in found[0].items():
        if target.card.name != "reinhard" and name == "maxima":
            continue  # of all pixels
        np.testing.assert_allclose(found[1][name], value, rtol=1e-6)
    with pytest.raises(NormalizationRefused, match="holds no pixel"):
        target.normalize(image, np.zeros_like(mask))
    with pytest.raises(UsageError, match=r"Boolean \(48, 40\)"):
        target.normalize(image, mask[:10])


@each
def test_json_round_trip_and_foreign_records(target) -> None:
    record = json.loads(json.dumps(target.to_json()))
    assert type(target).from_json(record) == target
    with pytest.raises(RunError, match="must be of method"):
        type(target).from_json(record | {"method": "zscore"})
    json.dumps(target.normalize(tile(0))[1][0].to_json(), allow_nan=False)


@each
def test_target_of_several_references(target) -> None:
    kind = type(target)
    images = [tile(n, shape) for n, shape in enumerate([(40, 40), (50, 44), (48, 60)])]
    assert kind.fit(images) == kind.fit(images[::-1])
    assert kind.fit(images[0]) == kind.fit(np.stack([images[0], images[0]]))
    with pytest.raises(NormalizationRefused, match="reference image 1: "):
        kind.fit(np.stack([tile(0), blank()]))
    with pytest.raises(UsageError, match="at least one reference"):
        kind.fit([])


@each
@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((40, 40, 3), np.uint8), "moveaxis"),
        (np.zeros((3, 40, 40), np.int32), "uint8 or floating point"),
        (np.linspace(0, 1, 4800).reshape(3, 40, 40), "multiply by 255"),
        (np.linspace(-5, 100, 4800).reshape(3, 40, 40), "0..255, got -5 to 100"),
        (np.linspace(0, 65535, 4800).reshape(3, 40, 40), "0..255, got 0 to 65535"),
    ],
)
def test_wrong_axes_types_and_ranges_are_named(target, images, words) -> None:
    with pytest.raises(UsageError, match=words):
        target.normalize(images)


def test_optical_density_by_hand_and_by_table() -> None:
    levels = np.array([0, 23, 239, 255], np.uint8)
    expected = np.array([np.log(240), np.log(10), 0.0, -np.log(256 / 240)])
    np.testing.assert_allclose(tiles.optical_density(levels), expected, atol=1e-6)
    np.testing.assert_allclose(tiles.optical_density(levels.astype(float)), expected, atol=1e-6)
    every = np.arange(256, dtype=np.uint8)
    flat = np.repeat(every[None], 3, axis=0)[:, None]
    assert (tiles.tissue_mask(flat)[0] == (tiles.optical_density(every) >= 0.15)).all()


def test_an_empty_batch_and_empty_images() -> None:
    out, records = macenko.Macenko().normalize(np.zeros((0, 3, 8, 8), np.uint8))
    assert out.shape == (0, 3, 8, 8)
    assert records == []
    with pytest.raises(NormalizationRefused, match="is empty"):
        macenko.Macenko().normalize(np.zeros((3, 0, 8), np.uint8))


def test_real_stained_cells_get_finite_results(data) -> None:
    from PIL import Image

    for path in sorted((data("wbc") / "images").glob("*.png"))[::60]:
        image = np.moveaxis(np.array(Image.open(path).convert("RGB")), -1, 0)
        for target in TARGETS:
            out, (record,) = target.normalize(image)
            assert record.reason == ""
            assert out.std() > 5
            assert out.dtype == np.uint8
