# SPDX-License-Identifier: Apache-2.0
"""Near-duplicates against brute force; mirror images; real data with known answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.cohorts.assess import SIGNATURE, assess
from vesalius.cohorts.similarity import (
    ALIKE,
    NEAR_BITS,
    groups,
    hash_distance,
    mirrored,
    near_duplicates,
    side_pairs,
    signatures_matrix,
)
from vesalius.volume import Volume

AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


def looks(images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    found = [assess(Volume(image[None, :, :, None], AFFINE)) for image in images]
    hashes = np.array([one.phash for one in found], np.int64)
    return hashes, signatures_matrix([one.signature or b"" for one in found])


def test_distance_counts_bits_of_signed_numbers() -> None:
    assert hash_distance(0, 0) == 0
    assert hash_distance(-1, 0) == 64
    assert hash_distance(-(2**63), 2**63 - 1) == 64
    assert hash_distance(5, -6) == 64


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 80))
def test_hash_search_equals_brute_force(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(-(2**63), 2**63 - 1, n)
    for row in range(1, n, 2):  # a chain of copies with up to nine bits flipped
        flips = rng.choice(64, rng.integers(0, 10), replace=False)
        mask = np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64)) if len(flips) else 0
        hashes[row] = (hashes[row - 1].view(np.uint64) ^ np.uint64(mask)).view(np.int64)
    signatures = np.broadcast_to(np.arange(SIGNATURE, dtype=np.int8), (n, SIGNATURE))
    want = [
        [a, b]
        for a in range(n)
        for b in range(a + 1, n)
        if hash_distance(int(hashes[a]), int(hashes[b])) <= NEAR_BITS
    ]
    got = near_duplicates(hashes, signatures)
    assert (groups(n, got) == groups(n, np.array(want, np.int64).reshape(-1, 2))).all()
    assert {tuple(pair) for pair in got.tolist()} <= {tuple(pair) for pair in want}


def test_chance_collisions_of_hashes_merge_nothing() -> None:
    rng = np.random.default_rng(0)
    hashes = np.full(500, 42)
    signatures = rng.integers(-127, 128, (500, SIGNATURE)).astype(np.int8)
    signatures[123] = signatures[321]
    assert near_duplicates(hashes, signatures).tolist() == [[123, 321]]


def test_a_thousand_copies_cost_a_thousand_pairs() -> None:
    signatures = np.tile(np.arange(SIGNATURE, dtype=np.int8), (1000, 1))
    found = near_duplicates(np.full(1000, 7), signatures)
    assert len(found) == 999
    assert set(groups(1000, found).tolist()) == {0}


def test_a_shared_frame_is_not_a_likeness() -> None:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:64, :64]
    disc = ((x - 32) ** 2 + (y - 32) ** 2 < 28**2) * 200.0
    images = [disc + np.where(disc > 0, rng.normal(0, 30, (64, 64)), 0) for _ in range(400)]
    images += [images[0] + rng.normal(0, 0.5, (64, 64)), images[1] * 3 + 5]
    hashes, signatures = looks(images)
    unit = signatures / np.linalg.norm(signatures.astype(float), axis=1, keepdims=True)
    likeness = unit @ unit.T
    others = np.triu(likeness[:400, :400], 1)
    assert (others >= ALIKE).sum() > 1000  # the disc alone passes a fixed threshold
    assert near_duplicates(hashes, signatures).tolist() == [[0, 400], [1, 401]]


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(24)))
def test_groups_do_not_depend_on_order(order: list[int]) -> None:
    rng = np.random.default_rng(1)
    images = [np.kron(rng.random((8, 8)), np.ones((6, 6))) for _ in range(12)]
    images += [image + rng.normal(0, 0.02, image.shape) for image in images]
    hashes, signatures = looks(images)
    place = np.array(order)
    first = groups(24, near_duplicates(hashes, signatures))
    again = groups(24, near_duplicates(hashes[place], signatures[place]))
    same = first[place][:, None] == first[place]
    assert (same == (again[:, None] == again)).all()
    assert Counter(Counter(first.tolist()).values()) == {2: 12}


def test_mirrored_signature_is_that_of_the_mirrored_volume() -> None:
    from scipy import ndimage

    rng = np.random.default_rng(0)
    volume = ndimage.gaussian_filter(rng.normal(size=(30, 28, 26)), 3)
    straight, flipped = (
        np.frombuffer(assess(Volume(array[None], np.eye(4))).signature or b"", np.int8)
        for array in (volume, volume[::-1])
    )
    assert np.abs(mirrored(straight[None])[0] - flipped.astype(int)).max() <= 1


def test_sides_are_paired_by_mirror_likeness_and_scale() -> None:
    from scipy import ndimage

    rng = np.random.default_rng(0)
    volumes, scales = [], []
    for _ in range(12):
        own = ndimage.gaussian_filter(rng.normal(size=(30, 28, 26)), 3)
        other = ndimage.gaussian_filter(rng.normal(size=(30, 28, 26)), 3)
        scale = 10 ** rng.uniform(0, 4)
        volumes += [own, (own + 0.6 * other)[::-1]]  # a left and a right
        scales += [scale, scale * 1.03]
    found = [assess(Volume(volume[None], np.eye(4))) for volume in volumes]
    signatures = signatures_matrix([one.signature or b"" for one in found])
    statistics = np.array(scales)[:, None] * np.array([[1.0, 3.0]])
    want = [[2 * n, 2 * n + 1] for n in range(12)]
    assert side_pairs(signatures, statistics).tolist() == want
    statistics[1::2] *= 2  # another scan's intensity scale
    assert not len(side_pairs(signatures, statistics))


def test_no_two_patients_resemble_each_other_in_real_slices(data: Callable[[str], Path]) -> None:
    from PIL import Image

    paths = sorted((data("sunnybrook") / "images").iterdir())
    hashes, signatures = looks([np.asarray(Image.open(path)).T for path in paths])
    patients = [path.name.split("-IM-")[0] for path in paths]
    links = near_duplicates(hashes, signatures)
    assert len(links) > 100  # neighboring frames of one beating heart
    assert all(patients[a] == patients[b] for a, b in links)
    assert max(Counter(groups(len(paths), links).tolist()).values()) <= 12


def test_real_ultrasound_duplicates_form_small_groups(data: Callable[[str], Path]) -> None:
    arrays = np.load(data("medmnist") / "breastmnist.npz")
    images = np.concatenate([arrays[f"{name}_images"] for name in ("train", "val", "test")])
    links = near_duplicates(*looks([image.T for image in images]))
    sizes = Counter(groups(len(images), links).tolist()).values()
    grouped = sum(size for size in sizes if size > 1)
    assert 100 < grouped < 350  # one lesion photographed twice, with and without calipers
    assert max(sizes) <= 6
    for a, b in links:
        pair = np.stack([images[a].ravel(), images[b].ravel()]).astype(float)
        assert np.corrcoef(pair)[0, 1] > 0.9
