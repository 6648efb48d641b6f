# SPDX-License-Identifier: Apache-2.0
"""Fitting masks: planted truth for each rule, the laws that they declare, and verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.cohorts.phantom import exam
from vesalius.cohorts.phantom.physics import Tissue
from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.masks import Mask, fitting_mask, holdout
from vesalius.normalization.masks.grid import Grid
from vesalius.normalization.masks.split import background_threshold
from vesalius.volume import LabelMap, Volume

RGB = ("red", "green", "blue")


def gray(data: np.ndarray, modality: str = "", **more) -> Volume:
    data = data if data.ndim == 3 else data[..., None]
    return Volume(data[None], np.eye(4), modality=modality, **more)


def color(data: np.ndarray, modality: str = "") -> Volume:
    """Return the image of an array (i, j, 3)."""
    return Volume(np.moveaxis(data, -1, 0)[..., None], np.eye(4), modality=modality, channels=RGB)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def radius(shape: tuple[int, ...], center=(0.5, 0.5, 0.5)) -> np.ndarray:
    """Return the distance from a center, 1 at the nearest border of a centered ball."""
    axes = [(np.arange(n) + 0.5) / n - c for n, c in zip(shape, center, strict=False)]
    return 2 * np.sqrt(sum(x**2 for x in np.meshgrid(*axes, indexing="ij")))


def head(seed: int, shape=(48, 44, 40), noise: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy head of four tissues, two of them dark holes, and its true extent."""
    rng = np.random.default_rng(seed)
    r, hole = radius(shape), radius(shape, (0.45, 0.5, 0.5))
    x = np.select([hole < 0.15, r < 0.5, r < 0.72, r < 0.8], [15.0, 700, 450, 1200], 0.0)
    x = np.hypot(x + noise * rng.standard_normal(shape), noise * rng.standard_normal(shape))
    return x, r < 0.8


def radiograph(seed: int, shape=(160, 128)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    i, j = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    return 900 + 500 * np.cos(3 * i) * np.cos(2 * j) + 250 * i + 20 * rng.standard_normal(shape)


def scan_sector(seed: int, shape=(200, 160)) -> tuple[np.ndarray, np.ndarray]:
    """Return a convex probe's speckle with a shadow and a cyst, and the true sector."""
    rng = np.random.default_rng(seed)
    i, j = np.meshgrid(
        np.arange(shape[0]) - shape[0] / 2, np.arange(shape[1]) + 40.0, indexing="ij"
    )
    depth, angle = np.hypot(i, j), np.arctan2(i, j)
    sector = (depth > 60) & (depth < 185) & (np.abs(angle) < 0.5)
    x = np.where(sector, 30 + rng.gamma(2.0, 30.0, shape), 0.0)
    x[sector & (np.abs(angle - 0.2) < 0.05) & (depth > 110)] = 0
    x[np.hypot(i + 15, j - 120) < 12] = 0
    x[:14, :3] = 255  # a ruler and letters on the screen
    x[180:196:2, 4:10] = 255
    return x, sector


# --- CT -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 1, 3])
def test_ct_keeps_the_body_and_drops_air_gas_and_couch(index: int) -> None:
    volume, truth, tissues = simulated("CT", index)
    mask = fitting_mask(volume)
    assert mask.kind == "air-free"
    assert dice(mask.data, truth) > 0.95
    assert mask.data[tissues == Tissue.LUNG].mean() > 0.95
    assert mask.data[tissues == Tissue.COUCH].mean() < 0.02
    assert volume.data[0][mask.data].min() >= -900


def test_ct_is_known_by_its_values_where_nothing_is_stated() -> None:
    volume, truth, _ = simulated("CT", 0)
    mask = fitting_mask(replace(volume, modality="", unit=""))
    assert mask.kind == "air-free"
    assert dice(mask.data, truth) > 0.95


def test_ct_gas_beside_a_thin_wall_does_not_cut_the_body_open() -> None:
    x = np.full((80, 80, 6), -1000.0)
    x[10:70, 10:70] = np.random.default_rng(0).normal(40, 20, (60, 60, 6))
    x[30:50, 12:20] = -1000  # 2 mm of wall
    mask = fitting_mask(gray(x, "CT", unit="HU"))
    assert (mask.data == (x > -900)).all()


def test_ct_inside_the_lung_is_whole() -> None:
    x = np.random.default_rng(0).normal(-800, 30, (12, 12, 12))
    assert fitting_mask(gray(x, "CT", unit="HU")).kind == "whole"


# --- MR and gray pictures -----------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "index"), [("T1", 3), ("T2", 3), ("T1", 4), ("T2", 4)])
def test_mr_foreground_is_the_body(kind: str, index: int) -> None:
    volume, truth, _ = simulated(kind, index)
    mask = fitting_mask(volume)
    assert mask.kind == "mr-foreground"
    assert dice(mask.data, truth) > 0.95


@pytest.mark.parametrize("noise", [0.0, 3.0, 20.0, 40.0])
def test_mr_foreground_under_noise_with_holes_filled(noise: float) -> None:
    x, truth = head(1, noise=noise)
    mask = fitting_mask(gray(x, "MR"))
    assert dice(mask.data, truth) > 0.97
    assert mask.data[radius(x.shape, (0.45, 0.5, 0.5)) < 0.15].all()


def test_mr_outliers_move_the_mask_little() -> None:
    x, truth = head(2)
    rng = np.random.default_rng(0)
    x[rng.random(x.shape) < 0.03] *= 50
    assert dice(fitting_mask(gray(x, "MR")).data, truth) > 0.95


def test_mr_crop_without_background_is_whole() -> None:
    rng = np.random.default_rng(0)
    x = np.where(radius((35, 50, 35)) < 0.6, 400.0, 250.0)
    x[radius(x.shape, (0.3, 0.3, 0.5)) < 0.2] = 90  # fluid
    x += 25 * rng.standard_normal(x.shape)
    assert fitting_mask(gray(x, "MR")).kind == "whole"


def test_mr_padding_is_background_where_no_noise_is() -> None:
    x = 200 + 60 * np.random.default_rng(0).standard_normal((64, 64, 1))
    x[:, :20] = 0
    mask = fitting_mask(gray(x, "MR"))
    assert mask.kind == "mr-foreground"
    assert (mask.data[:, 20:]).mean() > 0.99
    assert not mask.data[:, :19].any()


def test_text_beside_the_body_is_left_out() -> None:
    x, truth = head(3, (128, 128, 1))
    x[2:30:2, 3:9] = 2000
    mask = fitting_mask(gray(x))
    assert not mask.data[2:30, 3:9].any()
    assert dice(mask.data, truth) > 0.97


def test_an_image_with_one_value_in_the_foreground_is_whole() -> None:
    x = np.zeros((16, 16, 16), np.uint8)
    x[4:12, 4:12, 4:12] = 255
    assert fitting_mask(gray(x)).kind == "whole"


def test_channels_share_one_mask_and_an_empty_one_is_overlooked() -> None:
    x, truth = head(4)
    both = Volume(np.stack([x, np.zeros_like(x), 3 * x]), np.eye(4), modality="MR")
    assert dice(fitting_mask(both).data, truth) > 0.97


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 3), st.floats(1e-3, 1e4), st.floats(-1e4, 1e4))
def test_gain_and_offset_leave_the_mask_alone(seed: int, a: float, b: float) -> None:
    images = {
        "MR": head(seed, (40, 36, 20))[0],
        "PT": np.round(head(seed, (30, 36, 20))[0]),  # whole numbers lie on no cut
        "DX": np.pad(radiograph(seed), 12),
        "US": scan_sector(seed)[0],
    }
    for modality, x in images.items():
        one, two = fitting_mask(gray(x, modality)), fitting_mask(gray(a * x + b, modality))
        assert 0.01 < one.share < 0.99
        assert (one.data == two.data).all()


def test_a_threshold_lies_between_the_classes_or_nowhere() -> None:
    rng = np.random.default_rng(0)
    noise, tissue = rng.rayleigh(10, 4000), rng.normal(400, 60, 6000)
    cut = background_threshold(np.concatenate([noise, tissue]))
    assert cut is not None
    assert np.quantile(noise, 0.99) < cut < np.quantile(tissue, 0.01)
    # three classes: the lowest is the background, though the upper two part more easily
    cut = background_threshold(np.concatenate([noise[:800], tissue, rng.normal(1500, 60, 6000)]))
    assert cut is not None
    assert 30 < cut < 260
    assert background_threshold(tissue) is None
    assert background_threshold(np.concatenate([tissue, rng.normal(700, 60, 6000)])) is None
    assert background_threshold(np.ones(50)) is None


# --- X-ray, ultrasound, photographs, slides -----------------------------------------------------


@pytest.mark.parametrize("level", [0.0, 4000.0])
@pytest.mark.parametrize("margins", [(20, 11, 7, 0), (0, 0, 30, 25), (9, 9, 9, 9)])
def test_collimation_is_found_to_two_pixels(level: float, margins: tuple[int, ...]) -> None:
    x = radiograph(0)
    left, right, top, bottom = margins
    truth = np.zeros(x.shape, bool)
    truth[left : x.shape[0] - right, top : x.shape[1] - bottom] = True
    x = np.where(truth, x, level + 3 * np.random.default_rng(1).standard_normal(x.shape))
    mask = fitting_mask(gray(x, "DX"))
    assert mask.kind == "collimated"
    found = np.argwhere(mask.data[..., 0])
    assert np.abs(found.min(0) - np.argwhere(truth).min(0)).max() <= 2
    assert np.abs(found.max(0) - np.argwhere(truth).max(0)).max() <= 2
    assert dice(mask.data[..., 0], truth) > 0.97


def test_a_round_field_is_found_and_an_open_one_is_whole() -> None:
    x = radiograph(2, (128, 128))
    assert fitting_mask(gray(x, "RF")).kind == "whole"
    field = radius(x.shape) < 0.9
    mask = fitting_mask(gray(np.where(field, x, 0), "RF"))
    assert dice(mask.data[..., 0], field) > 0.97


def test_large_radiographs_are_cut_to_the_pixel() -> None:
    x = radiograph(3, (1500, 1100)).astype(np.uint16)
    x[:301] = 0
    mask = fitting_mask(gray(x, "CR"))
    assert np.argwhere(mask.data.any(axis=(1, 2))).min() == 301


def test_sector_holds_shadow_and_cyst_and_no_text() -> None:
    x, truth = scan_sector(0)
    mask = fitting_mask(gray(x, "US"))
    assert mask.kind == "sector"
    assert dice(mask.data[..., 0], truth) > 0.96
    assert mask.data[100 - 15, 120].all()  # the cyst
    assert mask.data[..., 0][truth].mean() > 0.94  # all but a part of the shadow
    assert mask.data[..., 0][~truth].mean() < 0.01
    assert not mask.data[:14, :3].any()


def test_sector_of_a_clip_in_color_is_one_for_all_frames() -> None:
    x, truth = scan_sector(1)
    clip = np.stack([x, 0.8 * x, 1.1 * x], axis=-1).clip(0, 255).astype(np.uint8)
    volume = Volume(np.stack([clip, clip, clip]), np.eye(4), modality="US", channels=RGB)
    mask = fitting_mask(volume)
    assert (mask.data == mask.data[..., :1]).all()
    assert dice(mask.data[..., 0], truth) > 0.96


@pytest.mark.parametrize("modality", ["", "XC", "OP"])
def test_dark_corners_fall_out_and_dark_lesions_stay(modality: str) -> None:
    rng = np.random.default_rng(0)
    lit = radius((150, 120)) < 1.1
    lesion = radius((150, 120), (0.4, 0.5)) < 0.3
    skin = np.array([210, 160, 130.0]) + 8 * rng.standard_normal((150, 120, 3))
    skin[lesion] = (40, 25, 20)
    skin[~lit] = 6
    mask = fitting_mask(color(skin.clip(0, 255).astype(np.uint8), modality))
    assert mask.kind == "corner-free"
    assert dice(mask.data[..., 0], lit) > 0.99
    assert mask.data[..., 0][lesion].all()


@pytest.mark.parametrize("glass", [(245, 243, 246), (250, 245, 160), (205, 208, 204)])
def test_tissue_is_found_on_white_yellow_and_gray_glass(glass: tuple[int, int, int]) -> None:
    cell = radius((90, 80)) < 0.6
    density = np.where(cell[..., None], (0.5, 1.1, 0.4), 0.0)
    x = np.array(glass) * np.exp(-density) + np.random.default_rng(0).normal(0, 2, (90, 80, 3))
    mask = fitting_mask(color(x.clip(0, 255).astype(np.uint8)))
    assert mask.kind == "tissue"
    assert dice(mask.data[..., 0], cell) > 0.97
    sixteen = color((x.clip(0, 255) * 257).astype(np.uint16))
    assert dice(fitting_mask(sixteen).data[..., 0], cell) > 0.97


def test_a_pale_rim_beside_dark_corners_is_no_glass() -> None:
    eye = radius((60, 60)) < 0.95
    x = np.where(eye[..., None], (220, 130, 70), (3, 3, 3))
    x[(radius((60, 60)) > 0.7) & eye] = (250, 245, 200)
    x = x + np.random.default_rng(0).integers(0, 4, x.shape)
    mask = fitting_mask(color(x.astype(np.uint8)))
    assert mask.kind == "corner-free"
    assert dice(mask.data[..., 0], eye) > 0.99


def test_a_tile_full_of_tissue_is_not_taken_for_glass() -> None:
    x = np.array([200, 120, 190]) + np.random.default_rng(0).normal(0, 5, (64, 64, 3))
    assert fitting_mask(color(x.astype(np.uint8), "SM")).share > 0.99


@pytest.mark.parametrize("modality", ["", "SM"])
def test_a_blank_tile_is_refused(modality: str) -> None:
    x = np.array([240, 238, 241]) + np.random.default_rng(0).normal(0, 2, (64, 64, 3))
    assert refusal(color(x.astype(np.uint8), modality)) == "blank-tile"


def test_a_gray_picture_stored_as_color_is_gray() -> None:
    x, truth = head(5, (96, 96, 1))
    picture = np.repeat(x / 6, 3, axis=2).clip(0, 255).astype(np.uint8)
    mask = fitting_mask(color(picture))
    assert mask.kind == "mr-foreground"
    assert dice(mask.data, truth) > 0.97


# --- given masks, verdicts, grid, hold-out ------------------------------------------------------


def test_given_masks_are_honored() -> None:
    x, _ = head(0)
    volume = gray(x, "MR")
    volume.data[0, 5, 5, 5] = np.nan
    labels = np.zeros((2, *x.shape), np.uint8)
    labels[0, 4:9, 4:9, 4:9], labels[1, 20, 20, 20] = 3, 1
    mask = fitting_mask(volume, given=LabelMap(labels, volume.affine))
    assert (mask.kind, int(mask.data.sum())) == ("given", 5**3)  # one NaN out, one of layer 1 in
    assert (fitting_mask(volume, given=labels.any(axis=0)).data == mask.data).all()
    with pytest.raises(NormalizationRefused, match="no finite voxel") as caught:
        fitting_mask(volume, given=np.zeros(x.shape, bool))
    assert caught.value.reason == "empty-mask"
    moved = np.eye(4)
    moved[0, 3] = 1.0
    with pytest.raises(UsageError, match="given must lie on the grid"):
        fitting_mask(volume, given=LabelMap(labels, moved))
    with pytest.raises(UsageError, match=r"given must have the shape \(48, 44, 40\)"):
        fitting_mask(volume, given=np.ones((3, 3, 3), bool))


@pytest.mark.parametrize("modality", ["", "CT", "MR", "PT", "DX", "US", "XC", "SM"])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (np.empty((1, 0, 4, 1)), "empty"),
        (np.full((1, 5, 5, 5), np.nan), "non-finite"),
        (np.full((1, 5, 5, 1), np.inf), "non-finite"),
        (np.zeros((1, 8, 8, 1), np.int16), "constant"),
        (np.zeros((3, 8, 8, 1), np.uint8), "constant"),
        (np.ones((1, 1, 1, 1), np.float16), "constant"),
        (np.array([7, np.nan, 7]).reshape(1, 3, 1, 1), "constant"),
    ],
)
def test_hopeless_images_get_a_verdict(data: np.ndarray, reason: str, modality: str) -> None:
    assert refusal(Volume(data, np.eye(4), modality=modality)) == reason


@pytest.mark.parametrize("modality", ["", "CT", "MR", "PT", "DX", "US", "XC", "SM"])
@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    "shape", [(1, 2, 1, 1), (1, 1, 9, 7), (1, 9, 8, 1), (3, 9, 8, 1), (2, 5, 6, 7)]
)
def test_every_kind_of_image_gets_a_mask(
    modality: str, dtype: type, shape: tuple[int, ...]
) -> None:
    x = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    mask = fitting_mask(Volume(x, np.eye(4), modality=modality))
    assert mask.data.shape == shape[1:]
    assert mask.data.any()
    assert mask.share == mask.data.mean()


@pytest.mark.parametrize("modality", ["CT", "MR", "PT", "DX", "US"])
def test_values_that_are_not_finite_are_outside(modality: str) -> None:
    x, _ = head(0)
    x[20:23, 20, 20], x[30, 30], x[0, 0, 0] = np.nan, np.inf, -np.inf
    mask = fitting_mask(gray(x.astype(np.float32), modality))
    assert mask.data.any()
    assert np.isfinite(x[mask.data]).all()


def test_the_input_is_left_alone() -> None:
    x, _ = head(0)
    x[3, 3, 3] = np.nan
    before = x.copy()
    fitting_mask(gray(x, "MR"))
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("full", [(7, 5, 3), (130, 90, 61), (700, 900, 1), (1, 5000, 300)])
def test_a_coarse_grid_expands_to_the_full_one(full: tuple[int, int, int]) -> None:
    grid = Grid.of(full)
    where = np.indices(full).sum(0) % 251
    coarse = grid.sample(where)
    assert coarse.size <= 64**3
    for axis, step in enumerate(grid.steps):
        assert coarse.shape[axis] == -(-full[axis] // step)
    mask = coarse > 125
    assert (grid.sample(grid.expand(mask)) == mask).all()
    small = max(grid.steps) == 1
    assert (grid.expand(mask) == (where > 125)).mean() > (0.999 if small else 0.9)
    # the surface is decided at full size, where the coarse mask is right to within a point
    ramp = np.broadcast_to(np.arange(full[1])[:, None], full)
    half = full[1] / 2 + 0.25
    assert (grid.refine(grid.sample(ramp) > half, ramp, half) == (ramp > half)).all()


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40)),
    st.integers(0, 2**31),
    st.floats(0.05, 1.0),
)
def test_holdout_parts_the_mask(shape: tuple[int, int, int], seed: int, share: float) -> None:
    data = np.random.default_rng(seed).random(shape) < share
    whole = Mask(data, "whole", float(data.mean()))
    fit, check = holdout(whole)
    assert not (fit.data & check.data).any()
    assert ((fit.data | check.data) == data).all()
    assert check.data.sum() in range(64, data.sum() - 63) or not check.data.any()
    again = holdout(whole)
    assert (again[0].data == fit.data).all()


@pytest.mark.parametrize("shape", [(64, 64, 64), (160, 160, 1), (96, 80, 24), (200, 9, 50)])
def test_holdout_checks_one_in_eight_everywhere(shape: tuple[int, int, int]) -> None:
    fit, check = holdout(Mask(np.ones(shape, bool), "whole", 1.0))
    assert check.share == pytest.approx(1 / 8, abs=0.02)
    assert fit.share + check.share == pytest.approx(1)
    halves = check.data[: shape[0] // 2].mean(), check.data[:, : shape[1] // 2].mean()
    assert halves == pytest.approx((1 / 8, 1 / 8), abs=0.03)
    edge = max(1, shape[0] // 16)
    assert check.data[:edge, 0, 0].all()  # cubes, not single voxels


def test_holdout_of_few_voxels_checks_none() -> None:
    fit, check = holdout(Mask(np.ones((10, 12, 1), bool), "whole", 1.0))
    assert fit.data.all()
    assert not check.data.any()


def test_a_mask_says_what_is_wrong_with_it() -> None:
    with pytest.raises(UsageError, match="kind must be one of air-free"):
        Mask(np.ones((2, 2, 2), bool), "air", 1.0)
    with pytest.raises(UsageError, match="data must be Boolean"):
        Mask(np.ones((2, 2, 2)), "whole", 1.0)
    assert (
        repr(Mask(np.ones((2, 2, 2), bool), "whole", 1.0)) == "Mask(whole, 2x2x2, 100.0 % inside)"
    )


# --- real data ----------------------------------------------------------------------------------


def test_real_crops_are_nearly_whole_and_slices_are_not(data: Callable[[str], Path]) -> None:
    import vesalius.io as io

    crops = sorted((data("hippocampus") / "images").glob("*.nii.gz"))[::10]
    assert min(fitting_mask(io.read(path)).share for path in crops) > 0.85
    for path in sorted((data("sunnybrook") / "images").glob("*.png"))[::60]:
        mask = fitting_mask(io.read(path))
        assert mask.kind == "mr-foreground"
        assert 0.3 < mask.share < 0.95
        ventricle = io.read_labels(data("sunnybrook") / "labels" / path.name).data[0] > 0
        assert mask.data[ventricle].mean() > 0.95 or not ventricle.any()


def test_real_cells_lie_in_the_tissue(data: Callable[[str], Path]) -> None:
    import vesalius.io as io

    for path in sorted((data("wbc") / "images").glob("*.png"))[::25]:
        mask = fitting_mask(io.read(path))
        nucleus = io.read_labels(data("wbc") / "labels" / path.name).data[0] == 255
        assert mask.kind == "tissue"
        assert mask.data[nucleus].mean() > 0.97
        assert mask.share < 0.7


# --- helpers ------------------------------------------------------------------------------------


def simulated(kind: str, index: int) -> tuple[Volume, np.ndarray, np.ndarray]:
    """Return a simulated patient's image, the body's true extent, and the tissue of each voxel."""
    examined = exam.examine(0, index, ("CT",) if kind == "CT" else ("MR",))
    image = examined.images[kind]
    diagnosis, site = exam.assignment(0, index)
    _, anatomy, _ = exam._draw(np.random.default_rng([0, index, 0]), index, diagnosis, site)
    tissues = anatomy.tissues(image.affine, image.stored.shape, couch=kind == "CT")
    outside = [Tissue.AIR, Tissue.COUCH] + ([Tissue.GAS] if kind == "CT" else [])
    return image.volume(), ~np.isin(tissues, outside), tissues


def refusal(volume: Volume) -> str:
    with pytest.raises(NormalizationRefused) as caught:
        fitting_mask(volume)
    return caught.value.reason
