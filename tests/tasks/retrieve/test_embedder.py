# SPDX-License-Identifier: Apache-2.0
"""The embedder: vectors of length one, one by one as together, failures named, similarity maps."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from vesalius.errors import DataError
from vesalius.geometry import reorient
from vesalius.networks import build
from vesalius.networks.pretrained import INPUT_SCALE, load_pretrained
from vesalius.tasks.retrieve.embedder import Embedder
from vesalius.volume import Volume


@pytest.fixture(scope="module")
def frozen() -> Embedder:
    return Embedder.load("frozen")


def scene(seed: int, *, blob: tuple[int, int] | None = None, shape=(60, 80)) -> Volume:
    rng = np.random.default_rng(seed)
    pixels = rng.normal(20, 4, shape)
    if blob is not None:
        i, j = np.indices(shape)
        near = np.hypot(i - blob[0], j - blob[1]) < 12
        pixels[near] += 100 + 60 * np.sin(j[near] * 1.1)
    return Volume(pixels[None, ..., None].astype(np.float32), np.diag([-1.0, -1, 1, 1]), "US",
                  calibrated=False)  # fmt: skip


def test_it_is_the_networks_own_embedding(frozen: Embedder) -> None:
    image = scene(0, blob=(30, 40))
    network = build("efficientnet_lite0", spatial_dims=2, in_channels=3, out_channels=1)
    load_pretrained(network, "efficientnet_lite0", in_channels=3)
    views = torch.from_numpy(frozen.views(image).views.astype(np.float32))
    assert views.shape == (1, 3, 224, 224)
    with torch.inference_mode():
        expected = functional.normalize(network.eval().encode(views * INPUT_SCALE)[0], dim=0)
    found = frozen.embed_volumes([image])
    assert found.shape == (1, frozen.dimension) == (1, 1280)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], expected.numpy(), atol=1e-5)


def test_together_as_one_by_one_and_failures_are_named(frozen: Embedder, memory) -> None:
    volumes = [scene(seed, blob=(20, 10 + 5 * seed)) for seed in range(3)]
    items = [{"volume": volume} for volume in volumes]
    empty = replace(volumes[0], data=np.zeros_like(volumes[0].data))
    cohort = memory.of([*items, {"volume": None}, {"volume": empty}])
    told = []
    found = frozen.embed(cohort, cohort.rows, lambda *words: told.append(words))
    assert told == [("embedding images", 5, None)]
    assert set(found.failures) == {row["key"] for row in cohort.rows[3:]}
    assert "ends early" in found.failures[cohort.rows[3]["key"]]
    assert np.isnan(found.table[3:]).all()
    np.testing.assert_allclose(np.linalg.norm(found.table[:3], axis=1), 1, atol=1e-6)
    for row, volume in zip(found.table, volumes, strict=False):
        np.testing.assert_allclose(frozen.embed_volumes([volume])[0], row, atol=1e-5)
    with pytest.raises(DataError):
        frozen.embed_volumes([empty])
    assert frozen.embed(cohort, []).table.shape == (0, 1280)


def test_a_volume_is_one_vector(frozen: Embedder) -> None:
    data = np.random.default_rng(0).normal(50, 9, (1, 40, 30, 12)).astype(np.float32)
    found = frozen.embed_volumes([Volume(data, np.diag([1.0, 1, 4, 1]), "MR")])
    assert found.shape == (1, 1280)
    np.testing.assert_allclose(np.linalg.norm(found), 1, atol=1e-6)


def test_identity_tells_what_made_a_vector(frozen: Embedder) -> None:
    again = Embedder.load("frozen")
    again.embed_volumes([scene(0)])  # use changes nothing
    assert Embedder.load("frozen").identity == frozen.identity == again.identity
    assert frozen.identity["dimension"] == 1280
    assert frozen.identity["size"] == 224
    assert frozen.words(["a mass"]) is None


def test_maps_point_at_what_two_images_share(frozen: Embedder) -> None:
    left, right = scene(1, blob=(30, 15)), scene(2, blob=(30, 62))
    found = frozen.similarity_map(left, right)
    for heat, at in zip(found, (15, 62), strict=True):
        assert heat.shape == (60, 80, 1)
        assert heat.min() >= 0
        peak = np.unravel_index(heat.argmax(), heat.shape)
        assert abs(peak[1] - at) < 16
        assert abs(peak[0] - 30) < 16
    assert max(heat.max() for heat in found) == pytest.approx(1)


def test_maps_of_volumes_lie_on_their_own_grid(frozen: Embedder) -> None:
    rng = np.random.default_rng(3)
    data = rng.normal(20, 3, (1, 40, 50, 16)).astype(np.float32)
    data[0, 8:18, 30:44, 9:12] += 120
    plain = Volume(data, np.diag([-1.0, -1, 4, 1]), "MR")
    turned = reorient(plain, "SAR")
    one, other = frozen.similarity_map(plain, turned)
    assert one.shape == plain.shape
    assert other.shape == turned.shape
    back = reorient(replace(turned, data=other[None]), "LPS").data[0]
    np.testing.assert_allclose(back, one, atol=1e-4)
    peak = np.unravel_index(one.argmax(), one.shape)
    assert 5 <= peak[0] <= 21
    assert 26 <= peak[1] <= 47
    assert 7 <= peak[2] <= 13


def test_the_places_of_an_image_add_up_to_the_cosine(frozen: Embedder) -> None:
    from vesalius.tasks.retrieve.similarity import places

    one, other = scene(1, blob=(30, 15)), scene(2, blob=(30, 62))
    vectors = frozen.embed_volumes([one, other])
    maps = frozen.model.maps(torch.from_numpy(frozen.views(one).views.astype(np.float32)))
    found = places(frozen.model.head, maps, vectors[1], 224)
    assert found.mean() == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-4)
