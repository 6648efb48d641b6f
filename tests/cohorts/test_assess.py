# SPDX-License-Identifier: Apache-2.0
"""`assess` against NumPy, and the laws of its hashes: layout, dtype, scale, noise, compression."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vesalius.cohorts.assess import SIGNATURE, assess, content_hash, noise_sigma
from vesalius.cohorts.similarity import hash_distance
from vesalius.volume import Volume

AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


def blobs(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return a smooth random picture in 0…1000."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    image = sum(
        ndimage.gaussian_filter(rng.normal(size=shape), min(shape) / part, mode="nearest") * part
        for part in (16, 8, 5)
    )
    image -= image.min()
    return (image / image.max() * 1000).astype(np.float32)


def flat(image: np.ndarray) -> Volume:
    return Volume(image[None, :, :, None], AFFINE)


def solid(image: np.ndarray, affine: np.ndarray = AFFINE) -> Volume:
    return Volume(image[None], affine)


DTYPES = st.sampled_from([np.uint8, np.int8, np.uint16, np.int16, np.int32, np.float32, np.float64])


@settings(max_examples=60, deadline=None)
@given(
    st.data(),
    hnp.array_shapes(min_dims=4, max_dims=4, max_side=9),
    DTYPES,
)
def test_statistics_equal_numpy(data: st.DataObject, shape: tuple[int, ...], dtype: type) -> None:
    if np.issubdtype(dtype, np.floating):
        elements = st.integers(-(2**20), 2**20).map(lambda n: n / 64)
    else:
        bounds = np.iinfo(dtype)
        elements = st.integers(max(bounds.min, -(2**30)), min(bounds.max, 2**30))
    array = data.draw(hnp.arrays(dtype, shape, elements=elements))
    got = assess(Volume(array, AFFINE))
    values = array.astype(np.float64).ravel()

    def order(q: float, numbers: np.ndarray = values) -> float:
        return float(np.quantile(numbers, q, method="inverted_cdf"))

    assert got.stat_min == values.min()
    assert got.stat_max == values.max()
    assert got.stat_mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-6)
    assert got.stat_std == pytest.approx(values.std(), rel=1e-6, abs=1e-3)
    assert (got.stat_p01, got.stat_median, got.stat_p99) == (order(0.01), order(0.5), order(0.99))
    assert got.stat_mad == order(0.5, np.abs(values - order(0.5)))


def test_large_images_are_sampled_close_to_numpy_and_always_alike() -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(100, 20, (1, 128, 128, 40)).astype(np.float32)
    array[0, :30] += 300
    got = assess(Volume(array, AFFINE))
    assert got.stat_mean == pytest.approx(float(array.mean(dtype=float)), rel=1e-6)
    assert got.stat_std == pytest.approx(float(array.std(dtype=float)), rel=1e-6)
    for name, q in (("stat_p01", 0.01), ("stat_median", 0.5), ("stat_p99", 0.99)):
        assert getattr(got, name) == pytest.approx(float(np.quantile(array, q)), abs=1.0)
    assert got == assess(Volume(np.asfortranarray(array), AFFINE))


def test_values_that_are_not_finite_do_not_count() -> None:
    image = blobs((40, 40))
    image[3, 4], image[5, 6], image[7, 8] = np.nan, np.inf, -np.inf
    got = assess(flat(image))
    finite = image[np.isfinite(image)].astype(np.float64)
    assert (got.stat_min, got.stat_max) == (finite.min(), finite.max())
    assert got.stat_mean == pytest.approx(finite.mean())
    nothing = assess(flat(np.full((20, 20), np.nan, np.float32)))
    assert nothing.stat_min is None
    assert nothing.phash is None
    assert nothing.content_hash


def test_header_only_measures_nothing() -> None:
    assert set(assess(flat(blobs((20, 20))), header_only=True).columns().values()) == {None}


def test_noise_is_recovered_whatever_the_anatomy_and_the_scale() -> None:
    rng = np.random.default_rng(1)
    image = blobs((256, 256))
    for sigma in (5, 20, 80):
        noisy = image + rng.normal(0, sigma, image.shape)
        assert noise_sigma(noisy[None]) == pytest.approx(sigma, rel=0.1)
    noisy = (image + rng.normal(0, 20, image.shape)).astype(np.float32)
    snr = assess(flat(noisy)).stat_snr
    assert snr == pytest.approx(assess(flat(noisy * 7 - 3000)).stat_snr, rel=1e-3)
    tissue = np.median(image[image > image.mean()]) - np.quantile(image, 0.01)
    assert snr == pytest.approx(tissue / 20, rel=0.3)


def test_content_hash_names_values_not_their_storage() -> None:
    image = np.random.default_rng(0).integers(-1000, 3000, (1, 9, 8, 7))
    base = Volume(image.astype(np.int16), AFFINE)
    same = [
        image.astype(np.float32),
        image.astype(np.float64),
        image,
        np.asfortranarray(image.astype(np.int32)),
        np.ascontiguousarray(image.astype(np.int16).transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1),
    ]
    assert {content_hash(Volume(array, AFFINE)) for array in same} == {content_hash(base)}
    shifted = AFFINE.copy()
    shifted[0, 3] = 0.5
    changed = image.copy()
    changed[0, 0, 0, 0] += 1
    others = [
        Volume(changed.astype(np.int16), AFFINE),
        Volume(base.data, shifted),
        Volume(base.data.reshape(1, 9, 7, 8), AFFINE),
        Volume(image + 0.25, AFFINE),
    ]
    assert len({content_hash(volume) for volume in [base, *others]}) == 5
    shifted[0, 3] = 2e-5  # below a thousandth of a millimeter
    assert content_hash(Volume(base.data, shifted)) == content_hash(base)
    zeros = Volume(np.array([[[[0.5, 0.0]]]]), AFFINE)
    assert content_hash(zeros) == content_hash(zeros.with_data(np.array([[[[0.5, -0.0]]]])))


@pytest.mark.parametrize("shape", [(64, 64), (200, 140), (40, 36, 30)])
def test_looks_survive_what_keeps_the_look(shape: tuple[int, ...]) -> None:
    from scipy import ndimage

    rng = np.random.default_rng(5)
    wrap = flat if len(shape) == 2 else solid
    image = blobs(shape, 3)
    got = assess(wrap(image))
    assert got.phash is not None
    assert len(got.signature or b"") == SIGNATURE
    changed = {
        "scale": image * 31 - 700,
        "integers": np.rint(image).astype(np.int16),
        "noise": image + rng.normal(0, 30, shape),
        "larger": ndimage.zoom(image, 1.6, order=1, grid_mode=True, mode="nearest"),
        "gamma": (image / 1000) ** 0.8,
        "hot pixel": np.where(np.arange(image.size).reshape(shape) == 77, 1e6, image),
    }
    for name, other in changed.items():
        distance = hash_distance(got.phash, assess(wrap(other)).phash or 0)
        assert distance <= 6, (name, distance)
    for seed in (11, 12, 13):
        assert hash_distance(got.phash, assess(wrap(blobs(shape, seed))).phash or 0) > 10


def test_looks_survive_jpeg() -> None:
    from PIL import Image

    image = (blobs((96, 96)) / 4).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=40)
    again = np.asarray(Image.open(stream))
    assert hash_distance(assess(flat(image)).phash or 0, assess(flat(again)).phash or 0) <= 4


def test_one_volume_in_two_orientations_looks_the_same() -> None:
    from vesalius.geometry import reorient

    volume = solid(blobs((40, 36, 30)), np.diag([-1.0, 2.0, 3.0, 1.0]))
    turned = reorient(volume, "ASL")
    assert turned.shape != volume.shape
    assert hash_distance(assess(volume).phash or 0, assess(turned).phash or 0) <= 1
    mirrored = replace(volume, data=volume.data[:, ::-1])  # another body, not another frame
    assert hash_distance(assess(volume).phash or 0, assess(mirrored).phash or 0) > 10


def test_constant_and_tiny_images_have_no_look() -> None:
    assert assess(flat(np.full((64, 64), 7, np.uint8))).phash is None
    assert assess(flat(blobs((15, 64)))).phash is None
    constant = assess(flat(np.full((64, 64), 7, np.uint8)))
    assert (constant.stat_std, constant.stat_mad, constant.stat_snr) == (0, 0, None)
    speck = np.zeros((64, 64), np.uint16)
    speck[10, 20] = 9  # one pixel: percentiles agree, the range does not
    assert assess(flat(speck)).phash is not None


def test_every_measure_allows_color_and_thin_volumes() -> None:
    color = np.stack([blobs((50, 60), n) for n in range(3)])[..., None]
    got = assess(Volume(color.astype(np.uint8), AFFINE))
    assert got.stat_mean == pytest.approx(color.astype(np.uint8).mean())
    assert got.phash is not None
    assert assess(Volume(blobs((32, 32, 4))[None], AFFINE)).phash is not None
    assert assess(Volume(np.array([[[[True]], [[False]]]]), AFFINE)).stat_max == 1
