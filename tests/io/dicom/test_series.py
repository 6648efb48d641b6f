# SPDX-License-Identifier: Apache-2.0
"""Series taken apart: geometry to 1e-3 mm in any file order, and each planted defect by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from scipy.spatial.transform import Rotation

from vesalius.io.dicom.header import read_header
from vesalius.io.dicom.series import Stack, stacks

N = 8
VOLUME = np.arange(N * 5 * 6, dtype=np.uint16).reshape(N, 5, 6)  # (k, rows, columns)
Write = Callable[..., list[Path]]


def read(paths: list[Path]) -> list[Stack]:
    return stacks([(path, read_header(path, digest=True)) for path in paths])


def names(result: list[Stack]) -> set[str]:
    return {problem.name for stack in result for problem in stack.problems}


def world(stack: Stack, k: int, row: int, column: int) -> np.ndarray:
    return (stack.affine @ [column, row, k, 1])[:3]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(st.floats(0.1, 5), st.floats(0.1, 5)),
    step=st.floats(0.2, 8),
    count=st.integers(1, 6),
    is_reversed=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_geometry_is_exact_for_any_orientation_and_file_order(
    write_series: Write,
    angles: tuple[float, float, float],
    spacing: tuple[float, float],
    step: float,
    count: int,
    is_reversed: bool,
    seed: int,
) -> None:
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    row, column, normal = turn.T
    direction = -normal if is_reversed else normal
    first = np.array([12.5, -30, 77])
    paths = write_series(
        VOLUME[:count],
        orientation=[*row, *column],
        first=first,
        step=direction * step,
        spacing=spacing,
    )
    random.Random(seed).shuffle(paths)
    (stack,) = read(paths)
    assert names([stack]) == set()
    assert stack.shape == (6, 5, count)
    for k in range(count):
        written = count - 1 - k if is_reversed else k
        assert stack.slices[k].number == written + 1
        for r, c in ((0, 0), (4, 5)):
            lps = first + direction * step * written
            lps = lps + row * c * spacing[1] + column * r * spacing[0]
            assert np.abs(world(stack, k, r, c) - lps * [-1, -1, 1]).max() < 1e-3
    assert np.linalg.det(stack.affine[:3, :3]) > 0  # k runs along row x column


def _position(ds: Dataset, offset: tuple[float, float, float]) -> None:
    ds.ImagePositionPatient = [
        float(a) + b for a, b in zip(ds.ImagePositionPatient, offset, strict=True)
    ]


def missing(k: int, _: Dataset) -> Any:
    return "leave out" if k == 3 else None


def uneven(k: int, ds: Dataset) -> None:
    _position(ds, (0, 0, 1.1 if k > 4 else 0))


def tilted(k: int, ds: Dataset) -> None:
    _position(ds, (0, 0.6 * k, 0))


def other_study(k: int, ds: Dataset) -> None:
    ds.StudyInstanceUID = "1.2.9" if k > 5 else "1.2.3"


def other_patient(k: int, ds: Dataset) -> None:
    ds.PatientID = "P2" if k > 5 else "P1"


def other_orientation(k: int, ds: Dataset) -> None:
    if k > 5:
        ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        ds.ImagePositionPatient = [k, 0, 0]


def mirrored(k: int, ds: Dataset) -> None:
    if k > 3:
        ds.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]


def skewed(_: int, ds: Dataset) -> None:
    ds.ImageOrientationPatient = [1, 0, 0, 0.2, 0.98, 0]


def turned(_: int, ds: Dataset) -> None:
    ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]  # the positions stay along z


def leaning(_: int, ds: Dataset) -> None:
    angle = np.radians(70)
    ds.ImageOrientationPatient = [1, 0, 0, 0, f"{np.cos(angle):.6f}", f"{np.sin(angle):.6f}"]


def slope(k: int, ds: Dataset) -> None:
    ds.RescaleSlope, ds.RescaleIntercept = (2 if k > 3 else 1), 0


def zero_slope(_: int, ds: Dataset) -> None:
    ds.RescaleSlope, ds.RescaleIntercept = 0, 0


def no_spacing(_: int, ds: Dataset) -> None:
    del ds.PixelSpacing


def no_position(_: int, ds: Dataset) -> None:
    del ds.ImagePositionPatient


def cut(k: int, ds: Dataset) -> None:
    if k == 2:
        ds.PixelData = ds.PixelData[:20]
        ds["PixelData"].VR = "OW"


def shifted(k: int, ds: Dataset) -> None:
    _position(ds, (3.0 if k == 4 else 0, 0, 0))


def unreadable(k: int, ds: Dataset) -> None:
    if k == 1:
        ds.add_new(0x00180060, "LO", "many")  # KVP
        ds[0x00180060].VR = "LO"


@pytest.mark.parametrize(
    ("edit", "finding", "at"),
    [
        (None, None, None),
        (missing, "missing-slices", 2),
        (uneven, "uneven-spacing", 4),
        (tilted, "gantry-tilt", None),
        (other_study, "two-studies", None),
        (other_patient, "two-patients", None),
        (other_orientation, "mixed-orientation", None),
        (mirrored, "orientation-contradiction", None),
        (skewed, "orientation-contradiction", None),
        (turned, "orientation-contradiction", None),
        (leaning, "orientation-contradiction", None),
        (slope, "uneven-slope", 4),
        (zero_slope, "uneven-slope", 0),
        (no_spacing, "no-spacing", None),
        (no_position, "no-position", None),
        (cut, "truncated-pixel-data", 2),
        (shifted, "uneven-spacing", None),
        (unreadable, "invalid-header-value", 1),
    ],
)
def test_a_planted_defect_gives_exactly_its_name(
    write_series: Write, edit: Any, finding: str | None, at: int | None
) -> None:
    result = read(write_series(VOLUME, edit=edit))
    assert names(result) == ({finding} if finding else set())
    for stack in result:
        for problem in stack.problems:
            assert problem.slice == at
            assert "P1" not in problem.message
            assert "P1" not in str(problem.evidence)


def test_numbers_of_a_gap_and_a_tilt(write_series: Write) -> None:
    (stack,) = read(write_series(VOLUME, edit=lambda k, _: "leave out" if k in (3, 4) else None))
    assert stack.gaps == ((2, 2),)
    assert stack.spacing[2] == pytest.approx(2.5, abs=1e-9)
    (stack,) = read(write_series(VOLUME, edit=tilted))
    assert stack.tilt == pytest.approx(np.degrees(np.arctan2(0.6, 2.5)), abs=1e-6)
    assert np.allclose(stack.affine[:3, 2], [0, -0.6, 2.5])


def test_stated_tilt_without_lean_is_no_tilt(write_series: Write) -> None:
    def stated(_: int, ds: Dataset) -> None:
        ds.GantryDetectorTilt = 12

    assert names(read(write_series(VOLUME, edit=stated))) == set()


def test_rounded_positions_are_even(write_series: Write) -> None:
    def rounded(k: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [-10, -20, round(0.625 * k, 1)]

    (stack,) = read(write_series(np.repeat(VOLUME, 8, 0), edit=rounded))
    assert stack.even
    assert stack.spacing[2] == pytest.approx(0.625, abs=1e-3)


@pytest.mark.parametrize("same_instance", [True, False])
def test_a_duplicate_is_left_out_and_named(write_series: Write, same_instance: bool) -> None:
    def twice(k: int, ds: Dataset) -> None:
        if k == N:
            ds.ImagePositionPatient = [-10, -20, 30 + 3 * 2.5]
            ds.SOPInstanceUID = "1.2.3.4.4" if same_instance else "1.2.3.4.99"

    paths = write_series(np.concatenate([VOLUME, VOLUME[3:4]]), edit=twice)
    (stack,) = read(paths[::-1])
    assert [s.number for s in stack.slices] == list(range(1, N + 1))
    (problem,) = stack.problems
    assert (problem.name, problem.slice) == ("duplicate-slices", 3)
    assert problem.severity == ("warning" if same_instance else "error")
    assert len(stack.duplicates) == 1


def test_slices_side_by_side_are_no_duplicates(write_series: Write) -> None:
    def two_columns(k: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [50 * (k % 2), 0, 2.0 * (k // 2)]

    result = read(write_series(VOLUME, edit=two_columns))
    assert [(stack.label, len(stack.slices)) for stack in result] == [("", 4), ("shifted", 4)]
    assert names(result) == set()

    def all_over(k: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [5 * k, 0, 0]

    (stack,) = read(write_series(np.repeat(VOLUME, 8, 0), edit=all_over))
    assert (len(stack.slices), stack.placed) == (64, False)
    assert names([stack]) == {"orientation-contradiction"}


def test_echoes_become_stacks_and_times_become_time_points(write_series: Write) -> None:
    def echoes(k: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [-10, -20, 2.0 * (k // 2)]
        ds.EchoTime = 4.6 if k % 2 else 2.3

    result = read(write_series(VOLUME, edit=echoes))
    assert [stack.label for stack in result] == ["echo 2.3", "echo 4.6"]
    assert [stack.shape for stack in result] == [(6, 5, 4)] * 2
    assert names(result) == set()

    def times(k: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [-10, -20, 2.0 * (k // 2)]
        ds.TemporalPositionIdentifier = k % 2 + 1

    (stack,) = read(write_series(VOLUME, edit=times))
    assert [[s.number for s in time] for time in stack.times] == [[1, 3, 5, 7], [2, 4, 6, 8]]
    assert names([stack]) == set()


def test_a_broken_off_time_point_stands_alone(write_series: Write) -> None:
    def times(k: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [-10, -20, 2.0 * (k % 5)]
        ds.AcquisitionNumber = k // 5

    result = read(write_series(VOLUME, edit=times))
    assert [(stack.label, len(stack.slices)) for stack in result] == [
        ("acquisition 0", 5),
        ("acquisition 1", 3),
    ]
    assert names(result) == set()


def test_two_sweeps_out_of_step_are_two_stacks(write_series: Write) -> None:
    def sweeps(k: int, ds: Dataset) -> None:
        ds.AcquisitionNumber = k // 4
        ds.ImagePositionPatient = [0, 0, 2.5 * (k % 4) + 0.9 * (k // 4)]

    result = read(write_series(VOLUME, edit=sweeps))
    assert [(stack.label, len(stack.slices)) for stack in result] == [
        ("acquisition 0", 4),
        ("acquisition 1", 4),
    ]
    assert [stack.spacing[2] for stack in result] == pytest.approx([2.5, 2.5])
    assert names(result) == set()

    def one_after_the_other(k: int, ds: Dataset) -> None:
        ds.AcquisitionNumber = k // 4
        ds.ImagePositionPatient = [0, 0, 2.5 * k + 0.9 * (k // 4)]

    (together,) = read(write_series(VOLUME, edit=one_after_the_other))
    assert names([together]) == {"uneven-spacing"}


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "Modality": "CT"}, "localizer"),
        ({"SeriesDescription": "3-plane LOC"}, "localizer"),
        ({"SeriesDescription": "t1 mprage location"}, "image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary-capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4"}, "secondary-capture"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "secondary-capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33"}, "document"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"}, "presentation"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.3"}, "structure-set"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "segmentation"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.7"}, "segmentation"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "mosaic"),
    ],
)
def test_kinds(write_series: Write, changes: dict[str, Any], kind: str) -> None:
    def edit(_: int, ds: Dataset) -> None:
        for name, value in changes.items():
            setattr(ds, name, value)

    (stack,) = read(write_series(VOLUME[:1], edit=edit))
    assert stack.kind == kind


def test_a_localizer_among_axial_slices_is_kept_apart(write_series: Write) -> None:
    def edit(k: int, ds: Dataset) -> None:
        if k == 0:
            ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
            ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    result = read(write_series(VOLUME, edit=edit, modality="CT"))
    assert [(stack.kind, len(stack.slices)) for stack in result] == [("image", 7), ("localizer", 1)]
    assert names(result) == set()


def test_an_axial_ct_that_is_not_axial(write_series: Write) -> None:
    paths = write_series(VOLUME, modality="CT", orientation=(1, 0, 0, 0, 0, -1), step=(0, 2.5, 0))
    assert names(read(paths)) == {"orientation-contradiction"}


@pytest.mark.parametrize(
    ("modality", "changes", "spacing", "calibrated"),
    [
        ("CR", {"ImagerPixelSpacing": [0.2, 0.1]}, (0.1, 0.2), True),
        ("DX", {"PixelSpacing": [0.4, 0.3], "ImagerPixelSpacing": [0.2, 0.1]}, (0.3, 0.4), True),
        ("DX", {}, (1, 1), False),
        ("US", {}, (1, 1), False),
        ("XC", {"PixelSpacing": [0, 0]}, (1, 1), False),
    ],
)
def test_planar_images(
    write_series: Write,
    modality: str,
    changes: dict[str, Any],
    spacing: tuple[float, float],
    calibrated: bool,
) -> None:
    def edit(_: int, ds: Dataset) -> None:
        for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            del ds[name]
        for name, value in changes.items():
            setattr(ds, name, value)

    result = read(write_series(VOLUME[:3], edit=edit, modality=modality))
    assert [stack.shape for stack in result] == [(6, 5, 1)] * 3  # each is its own image
    assert result[0].spacing[:2] == pytest.approx(spacing)
    assert result[0].calibrated is calibrated
    assert names(result) == (set() if calibrated else {"no-spacing"})
    codes = np.sign(result[0].affine.diagonal())
    assert codes.tolist() == [-1, -1, 1, 1]  # i to the left, j to posterior


def test_ultrasound_region_calibrates(write_series: Write) -> None:
    def edit(_: int, ds: Dataset) -> None:
        for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            del ds[name]
        region = Dataset()
        region.RegionSpatialFormat, region.RegionDataType = 1, 1
        region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
        region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 5, 4
        region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3  # cm
        region.PhysicalDeltaX, region.PhysicalDeltaY = 0.03, 0.02
        ds.SequenceOfUltrasoundRegions = [region]

    (stack,) = read(write_series(VOLUME[:1], edit=edit, modality="US"))
    assert stack.spacing[:2] == pytest.approx((0.3, 0.2))
    assert stack.calibrated


def test_real_ct_is_clean(data: Callable[[str], Path]) -> None:
    (stack,) = read(sorted(data("ct_abdomen/example_ct_dicom").iterdir()))
    assert (stack.shape, stack.kind, stack.problems) == ((512, 512, 20), "image", ())
