# SPDX-License-Identifier: Apache-2.0
"""Heads: ridge against scikit-learn, towers, blends, and words in the images' space."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge as Reference
from torch.nn import functional

from vesalius.networks.text import TextFeatures
from vesalius.tasks.retrieve.ridge import (
    Ridge,
    attributes,
    directions_of,
    fit_images,
    fit_words,
    words_target,
)
from vesalius.tasks.retrieve.similarity import places
from vesalius.tasks.retrieve.towers import Blend, Projection, Tower, WordsTowers

SPEC = {"hidden": 8, "dimension": 4, "lost": 0.2, "dropout": 0.5}
SETTINGS = {"strength": 0.3, "attributes": 0.25}


def test_ridge_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(3, 2, (40, 6)).astype(np.float32))
    target = rng.normal(size=(40, 3))
    target -= target.mean(0)
    head = fit_images(features, [target], np.ones(40), SETTINGS)
    table = features.double().numpy()
    x = (table - table.mean(0)) / table.std(0) / np.sqrt(6)
    expected = Reference(alpha=0.3, fit_intercept=False).fit(x, target).predict(x)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(head(features).numpy(), expected, atol=1e-4)


def test_attributes_tell_what_rows_share() -> None:
    rows = [{"label_a": "xy"[n % 2], "modality": "CT", "plane": None, "body_part": "head"[: n % 9]}
            for n in range(20)]  # fmt: skip
    found = attributes(rows, ["label_a"])
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-12)
    assert found.shape == (20, 2)  # one modality tells nothing, body parts are too few each
    assert found[0] @ found[2] > 0 > found[0] @ found[1]
    assert attributes(rows, []).shape == (20, 0)


def test_words_meet_the_images_they_belong_to() -> None:
    rng = np.random.default_rng(1)
    topics = rng.integers(0, 4, 80)
    words = torch.from_numpy(np.eye(6)[topics] + rng.normal(0, 0.05, (80, 6))).float()
    features = torch.from_numpy(np.eye(8)[topics] @ rng.normal(size=(8, 8))).float()
    bearing = np.arange(80) % 10 > 0
    attribute = attributes([{"label_k": str(t % 2)} for t in topics], ["label_k"])
    directions = directions_of(words, bearing, 3)
    target = words_target(words, bearing, directions)
    assert not target[~bearing].any()
    pca = PCA(3).fit(words.numpy()[bearing])
    np.testing.assert_allclose(np.abs(directions.T @ pca.components_.T), np.eye(3), atol=1e-3)
    images = fit_images(features, [target, attribute], np.ones(80), SETTINGS)
    texts = fit_words(words, bearing, attribute, directions, np.ones(80), SETTINGS)
    assert images.blocks == texts.blocks == [3, 2]
    likeness = (texts(words) @ images(features).T).numpy()
    same = topics[:, None] == topics[None]
    assert likeness[same].min() > likeness[~same].max()
    np.testing.assert_allclose(np.linalg.norm(texts(words).numpy(), axis=1), 1, atol=1e-5)
    again = Ridge(8, [3, 2])
    again.load_state_dict(images.state_dict())
    torch.testing.assert_close(again(features), images(features))


def test_the_cosine_of_a_blend_is_the_mean_of_its_heads() -> None:
    torch.manual_seed(0)
    tower, projection = Tower(6, SPEC).eval(), Projection(3, 5)
    x = torch.randn(7, 9)
    tower.standardize(x[:, :6])
    blend = Blend([tower, projection], [(0, 6), (6, 9)], [3.0, 1.0])
    assert blend.dimension == 9
    parts = [functional.normalize(tower(x[:, :6]), dim=1),
             functional.normalize(projection(x[:, 6:]), dim=1)]  # fmt: skip
    expected = 0.75 * parts[0] @ parts[0].T + 0.25 * parts[1] @ parts[1].T
    torch.testing.assert_close(blend(x) @ blend(x).T, expected)
    torch.testing.assert_close(blend.center[:6], x[:, :6].mean(0))
    moved = Tower(6, SPEC).eval()
    moved.load_state_dict(tower.state_dict())
    torch.testing.assert_close(moved(x[:, :6]), tower(x[:, :6]))


def test_words_leave_the_numbers_of_a_twin_alone() -> None:
    torch.manual_seed(1)
    texts = TextFeatures.fit(["left mass", "right mass", "left cyst", "right cyst"], 2)
    heads = [Tower(2, SPEC), Tower(2, SPEC)]
    words = WordsTowers(texts, heads, [0.4, 0.4], sentences=False, rest=5).eval()
    found = words.vectors(["left mass", "right cyst", "left mass"])
    assert found.shape == (3, 13)
    assert not found[:, 8:].any()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(found[0], found[2])


def test_places_of_a_linear_head_add_up() -> None:
    torch.manual_seed(2)
    head = Projection(5, 3)
    torch.nn.init.zeros_(head.layer.bias)
    maps = [torch.randn(2, 2, 4, 4), torch.randn(2, 3, 8, 8)]
    other = functional.normalize(torch.randn(3), dim=0).numpy()
    features = torch.cat([one.mean((0, 2, 3)) for one in maps])[None]
    cosine = functional.normalize(head(features), dim=1).detach().numpy()[0] @ other
    found = places(head, maps, other, 16)
    assert found.shape == (2, 16, 16)
    np.testing.assert_allclose(found.mean(), cosine, atol=1e-5)
