# SPDX-License-Identifier: Apache-2.0
"""Frozen embeddings: batch = one by one, mirrors, pictures of volumes, resumed from the cache."""

from __future__ import annotations

import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported

import numpy as np
import pytest
import torch

from vesalius.errors import UsageError
from vesalius.tasks.classify.batch import Image
from vesalius.tasks.classify.embeddings import embed_store, embedded, seconds_to_embed
from vesalius.tasks.classify.store import Store
from vesalius.tasks.frozen import FrozenEncoder, pictures

SPEC = {
    "encoder": "efficientnet_lite0",
    "size": 32,
    "channels": 1,
    "volumes": False,
    "mirror": False,
}


def encoder(**changes) -> FrozenEncoder:
    torch.manual_seed(0)
    return FrozenEncoder({**SPEC, **changes}, Path(), pretrained=False)


def one(views: int, seed: int, *shape: int) -> Image:
    rng = np.random.default_rng(seed)
    return Image(rng.normal(size=(views, 1, *(shape or (20, 20)))).astype(np.float16), (0, 0, 0))


@pytest.mark.parametrize("volumes", [False, True])
def test_a_batch_equals_one_by_one_and_views_are_averaged(volumes: bool) -> None:
    frozen = encoder(volumes=volumes)
    shape = (6, 6, 6) if volumes else (20, 20)
    held = [one(count, n, *shape) for n, count in enumerate((1, 3, 2))]
    together = frozen.images(held)
    assert together.shape == (3, frozen.features)
    assert frozen.features == frozen.encoder.level_features * (9 if volumes else 1)
    for row, image in zip(together, held, strict=True):
        torch.testing.assert_close(frozen.image(image), row, rtol=1e-4, atol=1e-5)
        views = [frozen.image(Image(view[None], image.facts)) for view in image.views]
        torch.testing.assert_close(torch.stack(views).mean(0), row, rtol=1e-4, atol=1e-5)


def test_a_mirror_changes_nothing_where_it_is_harmless() -> None:
    image = one(2, 0)
    turned = Image(np.ascontiguousarray(image.views[:, :, ::-1]), image.facts)
    even, plain = encoder(mirror=True), encoder(mirror=False)
    torch.testing.assert_close(even.image(image), even.image(turned), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain.image(image), plain.image(turned), rtol=1e-3)
    mean = (plain.image(image) + plain.image(turned)) / 2
    torch.testing.assert_close(even.image(image), mean, rtol=1e-4, atol=1e-5)


def test_a_volume_becomes_nine_pictures() -> None:
    cube = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 1, 5, 5, 5)))
    found = pictures(cube)
    assert found.shape == (18, 1, 5, 5)
    array = cube.numpy()
    for volume in range(2):
        for axis in range(3):
            of = array[volume, 0]
            wanted = (of.mean(axis=axis), of.max(axis=axis), of.take(2, axis=axis))
            for place, picture in enumerate(wanted):
                got = found[volume * 9 + axis * 3 + place, 0]
                np.testing.assert_allclose(got, picture, atol=1e-12)
    assert pictures(torch.zeros(1, 1, 4, 6, 5)).shape == (9, 1, 6, 6)


def test_nothing_of_it_is_trained() -> None:
    frozen = encoder()
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    before = frozen.encoder.state_dict()["stem.2.running_mean"].clone()
    frozen.images([one(4, 1)])
    assert torch.equal(frozen.encoder.state_dict()["stem.2.running_mean"], before)


def test_a_resumed_run_reads_what_was_embedded(tmp_path: Path) -> None:
    views = np.random.default_rng(0).normal(size=(4, 1, 20, 20)).astype(np.float16)
    places = {"b": (0, 1), "a": (1, 3)}
    store = Store(views, places, {}, {"a": (0, 0, 0), "b": (0, 0, 0)})
    shown: list[tuple] = []
    frozen = encoder()
    table = embed_store(tmp_path / "e.npy", frozen, store, lambda *args: shown.append(args))
    assert shown == [("embedding images", 2, 2)]
    for key in places:
        torch.testing.assert_close(table[key], frozen.image(store.image(key)))
    again = embed_store(tmp_path / "e.npy", encoder(size=64), store, None)  # would differ
    assert all(torch.equal(again[key], table[key]) for key in places)


def test_a_few_images_tell_how_long_it_takes(tmp_path: Path) -> None:
    class Slow:
        shown = 0

        def image(self, image: Image) -> None:
            self.images([image])

        def images(self, images: list[Image]) -> None:
            self.shown += sum(len(image.views) for image in images)
            time.sleep(0.02 * sum(len(image.views) for image in images))

    places = {str(n): (2 * n, 2) for n in range(500)}
    store = Store(np.zeros((1000, 1, 4, 4), np.float16), places, {}, dict.fromkeys(places, ()))
    slow = Slow()
    assert 0.9 < seconds_to_embed(tmp_path / "e.npy", slow, store) / 20 < 3  # type: ignore[arg-type]
    assert slow.shown < 100
    (tmp_path / "e.npy").touch()
    assert seconds_to_embed(tmp_path / "e.npy", slow, store) == 0  # type: ignore[arg-type]


def test_cases_are_made_of_their_images() -> None:
    vectors = torch.arange(6.0).reshape(3, 2)
    cases = embedded(
        [[(vectors[0], (1, 0, 0))], [(vectors[1], (2, 0, 0)), (vectors[2], (0, 1, 0))]]
    )
    assert torch.equal(cases.items, vectors)
    assert cases.facts.tolist() == [[1, 0, 0], [2, 0, 0], [0, 1, 0]]
    assert cases.lengths == (1, 2)


def test_only_a_network_with_levels_can_be_frozen() -> None:
    with pytest.raises(UsageError, match="no frozen encoder is known as 'resnet10'"):
        encoder(encoder="resnet10")
