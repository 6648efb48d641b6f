# SPDX-License-Identifier: Apache-2.0
"""Sliding in bounded memory answers as the plain way does, which holds all logits at once."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from vesalius.errors import BudgetError, DataError
from vesalius.geometry import reorient, resample
from vesalius.normalization import Normalizer
from vesalius.tasks.segment.argmax import Argmax
from vesalius.tasks.segment.grid import empty_labels, plan_shape, to_plan
from vesalius.tasks.segment.predict import Segmenter
from vesalius.tasks.segment.slide import lay_out, slide
from vesalius.volume import Volume

PLENTY = 1 << 30
GAP = 1e-3  # between the two largest logits: where they are nearer, rounding may choose


def slide_whole(network, image, decisions) -> np.ndarray:
    """The plain way: `(classes, i, j, k)` of an image `(C, i, j, k)`, one window at a time."""
    patch = np.array([*decisions["patch"], 1][:3])
    lack = np.maximum(0, patch - image.shape[1:])
    padding = [(0, 0), *((int(n // 2), int(n - n // 2)) for n in lack)]
    padded = np.pad(image.astype(np.float32), padding, constant_values=float(image.min()))
    places = []
    for n, p in zip(padded.shape[1:], patch, strict=True):
        count = 1 + int(np.ceil((n - p) / max(1, p * (1 - decisions["overlap"]))))
        places.append(sorted({round(float(x)) for x in np.linspace(0, n - p, count)}))
    bells = [np.exp(-32 * ((np.arange(p) - (p - 1) / 2) / p) ** 2) ** (p > 1) for p in patch]
    weight = np.maximum(np.einsum("i,j,k->ijk", *bells), 1e-3).astype(np.float32)
    total, norm = 0.0, np.zeros(padded.shape[1:], np.float32)
    flat = len(decisions["patch"]) == 2
    for place in itertools.product(*places):
        window = tuple(slice(a, a + int(p)) for a, p in zip(place, patch, strict=True))
        crop = torch.from_numpy(padded[(slice(None), *window)].copy())[None]
        answer = (network(crop[..., 0])[..., None] if flat else network(crop)).float()
        here = np.zeros((answer.shape[1], *padded.shape[1:]), np.float32)
        here[(slice(None), *window)] = answer[0].numpy() * weight
        total, norm[window] = total + here, norm[window] + weight
    inner = [
        slice(int(n // 2), int(n // 2) + m) for n, m in zip(lack, image.shape[1:], strict=True)
    ]
    return (total / norm)[(slice(None), *inner)]


def labels_whole(logits, affine, source, values) -> tuple[np.ndarray, np.ndarray]:
    """Labels on the source's grid, and by how much each one's logit is the largest."""
    there = np.stack(
        [resample(Volume(c[None], affine), source.affine, source.shape).data[0] for c in logits]
    )
    ordered = np.sort(there, axis=0)
    return np.array(values)[there.argmax(0)], ordered[-1] - ordered[-2]


def net(classes: int, *, dims: int = 3, channels: int = 1) -> nn.Module:
    """Answers that depend on a voxel's neighbors and on its place in the window."""
    torch.manual_seed(0)
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
    layers = [conv(channels, 8, 5, padding=2), nn.Tanh(), conv(8, classes, 3, padding=1)]
    model = nn.Sequential(*layers).requires_grad_(False)
    nn.init.normal_(layers[-1].weight)
    return model


def together(network, image, layout) -> np.ndarray:
    """All blocks in one array; what two of them hold must be the same."""
    out = np.full((layout.classes, *layout.shape), np.nan, np.float32)

    def take(block, corner):
        place = tuple(slice(a, a + n) for a, n in zip(corner, block.shape[1:], strict=True))
        held = out[(slice(None), *place)]
        known = ~np.isnan(held)
        np.testing.assert_allclose(held[known], block.numpy()[known], rtol=1e-4, atol=1e-4)
        held[...] = block

    slide(network, image, layout, take)
    return out


def tight(shape, decisions, classes: int) -> int:
    """The fewest bytes that are not refused; there, strips are two voxels wide."""
    low, high = 0, PLENTY
    while high - low > 1:
        middle = (low + high) // 2
        try:
            lay_out(shape, decisions, classes=classes, memory=middle)
        except BudgetError:
            low = middle
        else:
            high = middle
    return high


@settings(deadline=None, max_examples=25)
@given(
    st.tuples(*[st.integers(1, 21)] * 3),
    st.lists(st.integers(4, 12), min_size=2, max_size=3),
    st.sampled_from([0.0, 0.25, 0.5, 0.7]),
    st.integers(1, 9),
    st.integers(1, 5),
)
def test_blocks_make_up_what_the_plain_way_gives(shape, patch, overlap, width, batch) -> None:
    decisions = {"patch": patch, "overlap": overlap}
    image = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float16)
    network = net(3, dims=len(patch), channels=2)
    layout = replace(lay_out(shape, decisions, classes=3, memory=PLENTY), batch=batch)
    cells = max(1, shape[layout.cut] - 1)
    strips = tuple(
        (a, min(a + width, cells) + 1) if shape[layout.cut] > 1 else (0, 1)
        for a in range(0, cells, width)
    )
    expected = slide_whole(network, image, decisions)
    for way in (layout, replace(layout, strips=strips)):
        np.testing.assert_allclose(together(network, image, way), expected, rtol=1e-3, atol=1e-4)


GRIDS = {
    "as the plan": np.diag([1.0, 1.0, 1.0]),
    "flipped": np.diag([-1.3, -0.8, 2.2]),
    "permuted": np.array([[0.0, 0.0, 2.0], [-0.9, 0.0, 0.0], [0.0, 1.1, 0.0]]),
    "oblique": np.array([[0.3, 0.8, 0.0], [-0.8, 0.3, 0.4], [0.2, -0.1, 2.0]]),
}


@pytest.mark.parametrize("strips", [False, True])
@pytest.mark.parametrize("patch", [[10, 8, 6], [40, 40, 40], [12, 12]])
@pytest.mark.parametrize("shape", [(22, 17, 14), (21, 27, 1)])
@pytest.mark.parametrize("grid", GRIDS)
def test_a_prediction_is_the_plain_one_on_any_grid(grid, shape, patch, strips) -> None:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = GRIDS[grid], [10, -20, 30]
    rng = np.random.default_rng(0)
    source = Volume(rng.normal(size=(1, *shape)).astype(np.float32), affine)
    decisions = {
        "orientation": "RAS" if len(patch) == 3 else "native", "patch": patch, "overlap": 0.5,
        "spacing": [1.0, 1.0, 1.0][: len(patch)], "values": [3, 300, 7, 5],
        "labels": ["a", "b", "c", "d"], "network": {"in_channels": 1}, "color": False,
        "precision": "32-true",
    }  # fmt: skip
    model = net(5, dims=len(patch))
    plan = to_plan(source, decisions, Normalizer())
    logits = slide_whole(model, plan.data.astype(np.float16), decisions)
    expected, gap = labels_whole(logits, plan.affine, source, [0, 3, 300, 7, 5])
    memory = tight(plan.shape, decisions, 5) if strips else PLENTY
    segmenter = Segmenter(model, decisions, Normalizer())
    found = segmenter.predict(source, memory=memory)
    layout = segmenter.layout(source, memory=memory)
    assert layout.bytes <= memory
    assert (len(layout.strips) > 1) == strips
    assert found.data.shape == (1, *shape)
    assert (found.affine == source.affine).all()
    assert found.names == {3: "a", 300: "b", 7: "c", 5: "d"}
    assert len(np.unique(found.data)) > 1
    assert (gap > GAP).mean() > 0.99
    assert (found.data[0] == expected)[gap > GAP].all()


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.floats(-1, 1), min_size=9, max_size=9),
    st.tuples(*[st.integers(1, 12)] * 3),
    st.lists(st.floats(0.3, 4), min_size=3, max_size=3),
)
def test_the_plan_divides_the_same_box_along_the_same_axes(entries, shape, spacing) -> None:
    # What lets the answer be interpolated axis by axis, for oblique and sheared grids as well.
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(entries, (3, 3)) + np.diag([1.5, -1.5, 1.5])
    assume(max(shape) > 1)  # an image of one value is refused
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape)
    source = Volume(values, affine)
    decisions = {
        "orientation": "RAS", "spacing": spacing, "values": [1], "labels": ["x"],
        "network": {"in_channels": 1}, "color": False,
    }  # fmt: skip
    plan = to_plan(source, decisions, Normalizer())
    oriented = reorient(source)
    labels, along_plan = empty_labels(source, decisions)
    assert plan.shape == plan_shape(source, decisions)
    assert along_plan.shape == (1, *oriented.shape)
    voxels = np.random.default_rng(0).uniform(0, 1, (20, 3))
    for ends in (np.zeros(3), np.ones(3), *voxels):  # as shares of the box
        there = plan.affine @ [*(ends * plan.shape - 0.5), 1]
        np.testing.assert_allclose(
            there, oriented.affine @ [*(ends * oriented.shape - 0.5), 1], atol=1e-6
        )
    along_plan[0, 0, 0, 0] = 1
    (place,) = np.argwhere(labels.data[0])
    np.testing.assert_allclose(source.affine @ [*place, 1], oriented.affine @ [0, 0, 0, 1])


@settings(deadline=None, max_examples=25)
@given(st.tuples(*[st.integers(1, 40)] * 3), st.tuples(*[st.integers(1, 70)] * 3), st.booleans())
def test_the_largest_class_is_that_of_pytorchs_own_interpolation(planes, voxels, smooth) -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(4, *planes)).astype(np.float32))
    if smooth:  # large parts where one class is certain
        logits = torch.cumsum(logits, 1)
        logits[0, planes[0] // 2 :] += 50
    there = nn.functional.interpolate(logits[None], voxels, mode="trilinear")[0]
    ordered = there.sort(0).values
    out = np.full(voxels, -1)
    Argmax(out, [10, 20, 30, 40], planes).take(logits, (0, 0, 0))
    sure = (ordered[-1] - ordered[-2] > GAP).numpy()
    assert (out == 10 * (1 + there.argmax(0).numpy()))[sure].all()
    assert (out > 0).all()


def test_equal_logits_give_the_first_class() -> None:
    out = np.full((9, 9, 9), -1)
    Argmax(out, [5, 6, 7], (4, 4, 4)).take(torch.zeros(3, 4, 4, 4), (0, 0, 0))
    assert (out == 5).all()


def test_windows_go_through_the_network_in_batches_and_as_many_as_were_said() -> None:
    image = np.random.default_rng(0).normal(size=(1, 70, 40, 9)).astype(np.float32)
    decisions, seen = {"patch": [24, 20, 8], "overlap": 0.5}, []

    def network(batch):
        seen.append(batch.shape)
        return torch.cat([batch, -batch], 1)

    layout = lay_out((70, 40, 9), decisions, classes=2, memory=PLENTY)
    slide(network, image, layout, lambda *_: None)
    assert layout.windows == 5 * 3 * 2
    assert sum(shape[0] for shape in seen) == layout.windows
    assert len(seen) == -(-layout.windows // layout.batch)
    assert 4 * 64 * layout.batch * 24 * 20 * 8 <= 64 << 20
    seen.clear()
    memory = tight((70, 40, 9), decisions, 2)
    cut = lay_out((70, 40, 9), decisions, classes=2, memory=memory)
    slide(network, image, cut, lambda *_: None)
    assert len(cut.strips) == 39
    assert cut.bytes <= memory
    assert sum(shape[0] for shape in seen) == cut.windows > layout.windows
    assert str(cut).startswith(f"{cut.windows} windows in 39 strips, ")


def test_slices_of_a_stack_go_through_the_network_together() -> None:
    image = np.random.default_rng(0).normal(size=(1, 20, 20, 50)).astype(np.float32)
    layout = lay_out((20, 20, 50), {"patch": [24, 24], "overlap": 0.5}, classes=2, memory=PLENTY)
    seen = []

    def network(batch):
        seen.append(batch.shape)
        return torch.cat([batch, -batch], 1)

    out = together(network, image, layout)
    np.testing.assert_allclose(out[0], image[0], atol=1e-6)
    assert len(seen) == 1
    assert tuple(seen[0]) == (50, 1, 24, 24)
    assert layout.axis == 2


@pytest.mark.parametrize("channels", [1, 2])
def test_empty_windows_are_asked_once_and_nothing_changes(channels) -> None:
    rng = np.random.default_rng(0)
    decisions = {"patch": [8, 8, 8], "overlap": 0.5}
    model = net(3, channels=channels)
    asked = []

    def network(batch):
        asked.append(len(batch))
        return model(batch)

    full = rng.normal(size=(channels, 40, 12, 12)).astype(np.float16)
    air = full.copy()
    air[:, 14:] = full.min(axis=(1, 2, 3), keepdims=True)
    for image in (full, air):
        asked.clear()
        layout = lay_out(image.shape[1:], decisions, classes=3, memory=PLENTY)
        out = together(network, image, replace(layout, batch=4))
        np.testing.assert_allclose(out, slide_whole(model, image, decisions), rtol=1e-3, atol=1e-4)
        # Nine starts along i, two along j and k; the fifth window and later ones are empty.
        assert sum(asked) == (36 if image is full else 4 * 4 + 1)


def test_memory_is_kept_and_does_not_grow_with_the_classes() -> None:
    code = (
        "import re, sys, numpy as np, torch\n"
        "from vesalius.tasks.segment.argmax import Argmax\n"
        "from vesalius.tasks.segment.slide import lay_out, slide\n"
        "torch.set_num_threads(1)\n"
        "shape, classes = (128, 96, 80), int(sys.argv[1])\n"
        "image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float16)\n"
        "out = np.zeros((160, 120, 100), np.uint8)\n"
        "shift = torch.linspace(-1, 1, classes).view(1, -1, 1, 1, 1)\n"
        "def kib(name):\n"
        "    text = open('/proc/self/status').read()\n"
        "    return int(re.search(name + r':\\s+(\\d+)', text)[1])\n"
        "def run(image, out):\n"
        "    layout = lay_out(image.shape[1:], {'patch': [24, 24, 24], 'overlap': 0.25},\n"
        "                     classes=classes, memory=40 << 20)\n"
        "    largest = Argmax(out, range(classes), layout.shape)\n"
        "    slide(lambda x: -(x - shift).abs(), image, layout, largest.take)\n"
        "    return layout\n"
        "run(image[:, :25, :25, :25], out)  # what PyTorch takes at its first call is no matter\n"
        "open('/proc/self/clear_refs', 'w').write('5')\n"
        "before = kib('VmRSS')\n"
        "layout = run(image, out)\n"
        "assert len(np.unique(out)) == classes\n"
        "print((kib('VmHWM') - before) / 1024, layout.bytes / 2**20, len(layout.strips))\n"
    )
    rows = []
    for classes in (4, 60):
        command = [sys.executable, "-c", code, str(classes)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append([float(word) for word in done.stdout.split()])
    (_, said_few, strips_few), (many, said_many, strips_many) = rows
    whole = 4 * 60 * 128 * 96 * 80 / 2**20
    assert strips_few == 1 < strips_many
    assert said_few < said_many <= 40
    assert many < said_many + 32  # the network's own, and PyTorch's at its first call
    assert many < 0.4 * whole


def test_too_little_memory_and_answers_that_are_no_numbers_are_refused() -> None:
    decisions = {"patch": [8, 8, 8], "overlap": 0.5}
    with pytest.raises(
        BudgetError,
        match=r"20x30x40 voxels and 4 classes needs at least \d+ MiB, allowed are 0 MiB",
    ):
        lay_out((20, 30, 40), decisions, classes=4, memory=9000)
    logits = torch.zeros(2, 5, 5, 5)
    logits[1, 4, 4, 4] = torch.nan
    with pytest.raises(DataError, match="not a number"):
        Argmax(np.zeros((5, 5, 5)), [0, 1], (5, 5, 5)).take(logits, (0, 0, 0))
