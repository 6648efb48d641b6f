# SPDX-License-Identifier: Apache-2.0
"""Registration: known motions of simulated patients, and verdicts where there is no answer."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from vesalius.cohorts.phantom.exam import simulate_patient
from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.alignment.poses import pose
from vesalius.normalization.alignment.pyramid import base_level
from vesalius.normalization.alignment.registration import register
from vesalius.normalization.alignment.transform import Verdict
from vesalius.volume import Volume


@cache
def patient() -> dict[str, Volume]:
    return simulate_patient(100, 0)


def moved(volume: Volume, matrix: np.ndarray) -> Volume:
    return replace(volume, affine=matrix @ volume.affine)


def gap_mm(volume: Volume, one: np.ndarray, two: np.ndarray) -> float:
    level = base_level(volume)
    voxels = np.argwhere(level.foreground)[::50]
    points = np.column_stack([voxels, np.ones(len(voxels))]) @ level.affine.T
    return float(np.linalg.norm(points @ (one - two).T, axis=1).mean())


def verdict_of(fixed: Volume, moving: Volume) -> str:
    try:
        return str(register(fixed, moving).verdict)
    except NormalizationRefused as refusal:
        return f"refused: {refusal.reason}"


def test_a_known_motion_between_ct_and_mr_is_found_and_passes() -> None:
    ct, t1 = patient()["CT"], patient()["T1"]
    center = base_level(ct).center
    matrix = pose(np.array([4.0, -6, 9]), np.array([15.0, -12, 10]), center)
    found = register(ct, moved(t1, matrix))
    assert gap_mm(ct, np.eye(4), matrix) > 20
    assert gap_mm(ct, found.matrix, matrix) < 3  # voxels of 4.6 x 4.6 x 9 mm
    assert found.verdict is Verdict.PASSED
    assert found.kind == "rigid"
    assert found.overlap > 0.9
    np.testing.assert_allclose(np.linalg.svd(found.matrix[:3, :3])[1], 1, atol=1e-6)
    # Swapping the images gives the inverse: the same call gives the same numbers.
    swapped = register(moved(t1, matrix), ct)
    np.testing.assert_allclose(swapped.matrix @ found.matrix, np.eye(4), atol=1e-9)


def test_images_of_one_frame_stay_where_they_are() -> None:
    found = register(patient()["T1"], patient()["T2"])
    assert (found.matrix == np.eye(4)).all()
    assert (found.kind, found.start, found.verdict) == ("identity", "identity", Verdict.PASSED)


@pytest.mark.slow
def test_affine_finds_a_scale_that_rigid_cannot() -> None:
    t1, t2 = patient()["T1"], patient()["T2"]
    center = base_level(t1).center
    matrix = pose(np.zeros(3), np.array([8.0, 0, 0]), center)
    matrix[:3, :3] *= 1.06
    matrix[:3, 3] -= 0.06 * center
    rigid, affine = (register(t1, moved(t2, matrix), kind=kind) for kind in ("rigid", "affine"))
    assert gap_mm(t1, affine.matrix, matrix) < 4  # voxels of 4.6 x 4.6 x 9 mm
    assert gap_mm(t1, affine.matrix, matrix) < 0.5 * gap_mm(t1, rigid.matrix, matrix)
    assert affine.metric > rigid.metric
    np.testing.assert_allclose(np.linalg.svd(affine.matrix[:3, :3])[1], 1.06, atol=0.03)


@pytest.mark.parametrize(
    "case", ["noise", pytest.param("turned by 90 degrees, not searched", marks=pytest.mark.slow)]
)
def test_what_has_no_answer_does_not_pass(case: str) -> None:
    t1, ct = patient()["T1"], patient()["CT"]
    if case == "noise":
        noise = np.random.default_rng(0).gamma(2, 50, (1, 40, 40, 20))
        moving = Volume(noise, t1.affine @ np.diag([2.0, 2, 1, 1]))
    else:
        moving = moved(t1, pose(np.array([0.0, 0, 90]), np.zeros(3), base_level(t1).center))
    assert verdict_of(ct, moving) in ("flagged", "refused: overlap")


@pytest.mark.slow
def test_a_pet_stays_beside_its_ct_unless_that_is_far_worse() -> None:
    ct = patient()["CT"]
    uptake = ndimage.gaussian_filter(1.0 * (ct.data > -500), (0, 1, 1, 1))
    uptake += np.random.default_rng(0).normal(0, 0.1, uptake.shape)
    pet = replace(ct, data=uptake, modality="PT", unit="g/ml")
    near = pose(np.zeros(3), np.array([4.0, 3, 0]), np.zeros(3))
    found = register(ct, moved(pet, near))
    assert found.kind == "identity"
    far = pose(np.zeros(3), np.array([30.0, 0, 20]), np.zeros(3))
    assert gap_mm(ct, register(ct, moved(pet, far)).matrix, far) < 2


def test_images_that_lie_apart_are_refused_unless_the_frame_is_not_trusted() -> None:
    t1, t2 = patient()["T1"], patient()["T2"]
    matrix = pose(np.zeros(3), np.array([0.0, 0, 2000]), np.zeros(3))
    with pytest.raises(NormalizationRefused, match="trust_frame=False") as refusal:
        register(t1, moved(t2, matrix))
    assert refusal.value.reason == "overlap"
    with pytest.raises(NormalizationRefused, match=r"share 0\.0%"):
        register(t1, moved(t2, matrix), kind="identity", trust_frame=False)


@pytest.mark.slow
def test_a_frame_that_is_not_trusted_is_searched_from_the_centers() -> None:
    t1, t2 = patient()["T1"], patient()["T2"]
    matrix = pose(np.zeros(3), np.array([0.0, 0, 2000]), np.zeros(3))
    found = register(t1, moved(t2, matrix), trust_frame=False)
    assert found.start == "centers"
    assert gap_mm(t1, found.matrix, matrix) < 3


def test_identity_judges_the_overlap_and_searches_nothing() -> None:
    t1, t2 = patient()["T1"], patient()["T2"]
    half = pose(np.zeros(3), np.array([0.0, 0, 110]), np.zeros(3))
    found = register(t1, moved(t2, half), kind="identity")
    assert (found.matrix == np.eye(4)).all()
    assert found.verdict is Verdict.FLAGGED
    assert "foreground overlap" in found.reasons[0]
    most = pose(np.zeros(3), np.array([0.0, 0, 160]), np.zeros(3))
    with pytest.raises(NormalizationRefused, match="at least 25%"):
        register(t1, moved(t2, most), kind="identity")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (np.full((1, 8, 8, 8), 3.0), "constant"),
        (np.random.default_rng(0).normal(size=(1, 64, 64, 1)), "too-thin"),
        (np.where(np.indices((1, 8, 8, 8)).sum(0) == 0, np.nan, 1.0), "non-finite"),
        (np.empty((1, 0, 8, 8)), "empty"),
    ],
)
def test_hopeless_images_are_refused_by_name(data: np.ndarray, reason: str) -> None:
    for pair in ((patient()["T1"], Volume(data, np.eye(4))), (Volume(data, np.eye(4)),) * 2):
        with pytest.raises(NormalizationRefused) as refusal:
            register(*pair)
        assert refusal.value.reason == reason


def test_unknown_kinds_are_named() -> None:
    with pytest.raises(UsageError, match="Did you mean 'rigid'"):
        register(patient()["T1"], patient()["T2"], kind="rigit")


def test_sheared_and_color_images_are_served() -> None:
    t1 = patient()["T1"]
    shear = np.eye(4)
    shear[0, 2] = 0.1
    level = base_level(replace(t1, affine=t1.affine @ shear, data=np.repeat(t1.data, 3, axis=0)))
    axes = level.affine[:3, :3] / level.spacing_mm
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    before = base_level(t1)
    assert level.volume_mm3 == pytest.approx(before.volume_mm3, rel=0.03)


@pytest.mark.slow
def test_pet_and_ct_of_one_session_stay_and_mr_moves_onto_the_anatomy(data) -> None:
    from vesalius.io import read

    folder = data("sts") / "STS_003"
    ct = read(folder / "CT_image.nii.gz")
    pet = register(ct, read(folder / "PET_image.nii.gz"))
    assert pet.kind == "identity"
    unmoved = register(ct, read(folder / "MR_T1_image.nii.gz"), kind="identity")
    mr = register(ct, read(folder / "MR_T1_image.nii.gz"))
    assert mr.metric > 1.1 * unmoved.metric
