# SPDX-License-Identifier: Apache-2.0
"""Stacks to volumes: values, units, color, and resampling against analytic phantoms."""

from __future__ import annotations

import random
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom.data
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from vesalius.errors import CorruptFile, GeometryError, LimitExceeded, UnsupportedFormat, UsageError
from vesalius.geometry import reorient
from vesalius.io.dicom import read_header, read_series, stacks
from vesalius.io.dicom.assemble import assemble
from vesalius.io.limits import Limits
from vesalius.volume import Volume

Write = Callable[..., list[Path]]
RNG = np.random.default_rng(0)
STORED = RNG.integers(0, 4000, (7, 5, 6)).astype(np.uint16)  # (k, rows, columns)


def one(paths: list[Path], **options: Any) -> Volume:
    (volume,) = read_series(paths, **options)
    return volume


def plain(volume: Volume) -> np.ndarray:
    """Return (k, rows, columns) of the first channel."""
    return volume.data[0].transpose(2, 1, 0)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10_000), is_reversed=st.booleans())
def test_file_order_does_not_matter(write_series: Write, seed: int, is_reversed: bool) -> None:
    paths = write_series(STORED, step=(0, 0, -2.5 if is_reversed else 2.5))
    ordered = one(paths)
    random.Random(seed).shuffle(paths)
    shuffled = one(paths)
    assert np.array_equal(plain(shuffled), STORED[::-1] if is_reversed else STORED)
    assert np.array_equal(shuffled.data, ordered.data)
    assert np.array_equal(shuffled.affine, ordered.affine)
    assert shuffled.source.files == ordered.source.files
    assert shuffled.modality == "MR"


@pytest.mark.parametrize("is_signed", [True, False])
def test_whole_numbers_stay_whole(write_series: Write, is_signed: bool) -> None:
    stored = STORED.astype(np.int16) - 2000 if is_signed else STORED

    def edit(_: int, ds: Dataset) -> None:
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
        if not is_signed:
            ds.BitsStored, ds.HighBit = 12, 11

    volume = one(write_series(stored, modality="CT", edit=edit))
    assert volume.data.dtype == (np.int32 if is_signed else np.int16)
    assert np.array_equal(plain(volume), stored.astype(int) - 1024)
    assert volume.unit == "HU"


def test_each_slice_has_its_own_slope_and_intercept(write_series: Write) -> None:
    slopes = np.array([1, 0.5, 1e-8, 7, 2.25, 3, 1.5])
    intercepts = np.array([0, -3, 0, 0.5, 100, 0, -1])

    def edit(k: int, ds: Dataset) -> None:
        ds.RescaleSlope, ds.RescaleIntercept = f"{slopes[k]:g}", f"{intercepts[k]:g}"
        ds.Units = "BQML"

    volume = one(write_series(STORED, modality="PT", edit=edit))
    want = STORED * slopes[:, None, None] + intercepts[:, None, None]
    assert volume.data.dtype == np.float32
    assert np.allclose(plain(volume), want, rtol=1e-6)
    assert volume.unit == "Bq/ml"
    assert "uneven-slope" not in volume.source.metadata["problems"]


def test_an_unreadable_slope_is_refused_and_not_taken_for_one(write_series: Write) -> None:
    def edit(_: int, ds: Dataset) -> None:
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024

    paths = write_series(STORED, modality="CT", edit=edit)
    raw = paths[3].read_bytes()
    assert raw.count(b"-1024") == 1
    paths[3].write_bytes(raw.replace(b"-1024", b"-10,4"))
    with pytest.raises(CorruptFile, match="rescale intercept cannot be read") as caught:
        one(paths)
    assert caught.value.path == str(paths[3])


@pytest.mark.parametrize("cosines", [(1, 0, 0, 1, 0, 0), (0, 0, 0, 0, 0, 0)])
def test_slices_whose_orientation_spans_no_plane_are_refused(
    write_series: Write, cosines: tuple[float, ...]
) -> None:
    paths = write_series(STORED, modality="CT", orientation=cosines)
    with pytest.raises(GeometryError, match="no usable position or orientation") as caught:
        one(paths)
    assert caught.value.evidence["problem"] == "no-position"


def test_white_is_large(write_series: Write) -> None:
    def edit(_: int, ds: Dataset) -> None:
        ds.PhotometricInterpretation = "MONOCHROME1"
        ds.BitsStored, ds.HighBit = 12, 11

    volume = one(write_series(STORED[:1], modality="DX", edit=edit))
    assert np.array_equal(plain(volume), 4095 - STORED[:1].astype(int))
    assert volume.source.metadata["inverted"] is True
    assert volume.source.metadata["photometric"] == "MONOCHROME1"
    measured = one(write_series(STORED[:1], modality="PT", edit=edit))
    assert np.array_equal(plain(measured), STORED[:1])
    assert measured.source.metadata["inverted"] is False


def test_color_becomes_channels(write_series: Write) -> None:
    pixels = RNG.integers(0, 255, (1, 5, 6, 3)).astype(np.uint8)
    volume = one(write_series(pixels, modality="XC"))
    assert volume.channels == ("red", "green", "blue")
    assert volume.data.dtype == np.uint8
    assert np.array_equal(volume.data[:, :, :, 0].transpose(2, 1, 0), pixels[0])


def test_palette_color_equals_pydicom() -> None:
    from pydicom.pixels import apply_color_lut

    path = pydicom.data.get_testdata_file("examples_palette.dcm")
    ds = pydicom.dcmread(path)
    want = apply_color_lut(ds.pixel_array, ds) >> 8
    volume = one([Path(path)])
    assert np.array_equal(volume.data[:, :, :, 0].transpose(2, 1, 0), want)


def test_modality_table_is_applied(write_series: Write) -> None:
    def edit(_: int, ds: Dataset) -> None:
        item = Dataset()
        item.add_new(0x00283002, "US", [4096, 0, 16])
        item.ModalityLUTType = "OD"
        item.add_new(0x00283006, "OW", (np.arange(4096, dtype=np.uint16)[::-1] * 3).tobytes())
        ds.ModalityLUTSequence = [item]

    volume = one(write_series(STORED[:1], modality="CR", edit=edit))
    assert np.array_equal(plain(volume), (4095 - STORED[:1].astype(int)) * 3)
    assert volume.unit == "OD"


def test_time_points_are_channels(write_series: Write) -> None:
    def edit(k: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [-10, -20, 2.0 * (k % 3)]
        ds.TriggerTime = 10 * (k // 3)

    volume = one(write_series(STORED[:6], edit=edit))
    assert volume.channels == ("t0", "t1")
    assert np.array_equal(volume.data.transpose(0, 3, 2, 1), STORED[:6].reshape(2, 3, 5, 6))


def test_provenance_of_each_slice(write_series: Write) -> None:
    paths = write_series(STORED)
    volume = one(paths[::-1])
    assert volume.source.files == tuple(map(str, paths))
    assert volume.source.format == "dicom"
    assert volume.source.metadata["slices"] == [[k, 0] for k in range(7)]


# A linear function of the world survives linear interpolation exactly.
def phantom(points: np.ndarray) -> np.ndarray:
    return 300 + points @ [3.0, -2.0, 5.0]


def sampled(
    shape: tuple[int, int, int], first: np.ndarray, axes: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """Return the phantom in LPS on (k, rows, columns); axes are row and column vectors."""
    _, rows, columns = shape
    r, c = np.mgrid[:rows, :columns]
    plane = c[..., None] * axes[0] + r[..., None] * axes[1]
    return phantom(first + plane[None] + places[:, None, None, :])


def scaled(ds: Dataset) -> None:
    ds.RescaleSlope, ds.RescaleIntercept = "0.01", "0"


def compare_inside(volume: Volume, want_outside: float | None) -> float:
    """Return the largest error against the phantom where the volume holds it; count the rest."""
    index = np.stack(np.mgrid[tuple(slice(n) for n in volume.shape)], axis=-1)
    world = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    want = phantom(world * [-1, -1, 1])
    got = volume.data[0]
    inside = np.ones(got.shape, bool) if want_outside is None else got != want_outside
    assert inside.mean() > 0.5
    return float(np.abs(got - want)[inside].max())


def test_a_tilted_series_is_refused_or_straightened(write_series: Write) -> None:
    first, step = np.array([-20.0, -30.0, 10.0]), np.array([0.0, 0.9, 3.0])
    axes = np.array([[1.5, 0, 0], [0, 1.25, 0]])
    places = np.arange(12)[:, None] * step
    values = sampled((12, 20, 16), first, axes, places)
    paths = write_series(
        np.rint(values * 100).astype(np.uint16),
        first=first,
        step=step,
        spacing=(1.25, 1.5),
        edit=lambda _, ds: scaled(ds),
    )
    with pytest.raises(GeometryError, match=r"lean 16\.70 degrees") as caught:
        read_series(paths)
    assert caught.value.evidence["problem"] == "gantry-tilt"
    volume = one(paths, resample_irregular=True)
    assert volume.spacing == pytest.approx((1.5, 1.25, 3.0))
    directions = volume.affine[:3, :3] / volume.spacing
    assert np.abs(directions.T @ directions - np.eye(3)).max() < 1e-9  # upright
    # The corner of the sheared box that reaches furthest is covered.
    last = (np.linalg.inv(volume.affine) @ [20, 30 - 0.9 * 11, 43, 1])[:3]
    assert (last > -1e-6).all()
    assert volume.shape[1] == 20 + int(np.ceil(0.9 * 11 / 1.25))
    # Linear interpolation mixes the border row with the held edge for up to half a voxel.
    got = volume.data[0]
    index = np.stack(np.mgrid[tuple(slice(n) for n in volume.shape)], axis=-1)
    world = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    row = ((world[..., 1] * -1 - first[1]) - 0.3 * (world[..., 2] - first[2])) / 1.25
    inside = (row >= 0) & (row <= 19)
    error = np.abs(got - phantom(world * [-1, -1, 1]))[inside]
    assert inside.sum() >= 12 * 16 * 19
    assert error.max() < 0.02


def test_an_uneven_series_is_refused_or_resampled(write_series: Write) -> None:
    heights = np.array([0.0, 2, 4, 6.7, 8, 10, 13.1, 14])
    first, axes = np.array([5.0, 6.0, 7.0]), np.array([[1.0, 0, 0], [0, 1.0, 0]])
    places = heights[:, None] * np.array([0, 0, 1.0])
    values = sampled((8, 4, 5), first, axes, places)

    def edit(k: int, ds: Dataset) -> None:
        scaled(ds)
        ds.ImagePositionPatient = [5, 6, 7 + heights[k]]

    paths = write_series(np.rint(values * 100).astype(np.uint16), spacing=(1, 1), edit=edit)
    with pytest.raises(GeometryError, match=r"range from 0.900 to 3.100"):
        read_series(paths)
    volume = one(paths, resample_irregular=True)
    assert volume.shape == (5, 4, 8)
    assert volume.spacing[2] == pytest.approx(2.0)
    assert np.allclose(volume.affine[:3, 3], [-5, -6, 7])
    assert compare_inside(volume, None) < 0.02


def test_gaps_are_refused_or_filled(write_series: Write) -> None:
    first, axes = np.array([0.0, 0, 0]), np.array([[1.0, 0, 0], [0, 1.0, 0]])
    places = np.arange(9)[:, None] * np.array([0, 0, 2.0])
    values = sampled((9, 4, 5), first, axes, places)

    def edit(k: int, ds: Dataset) -> Any:
        scaled(ds)
        return "leave out" if k in (2, 5, 6) else None

    paths = write_series(
        np.rint(values * 100).astype(np.uint16),
        first=first,
        step=(0, 0, 2.0),
        spacing=(1, 1),
        edit=edit,
    )
    with pytest.raises(GeometryError, match=r"after slice 1: gap of 4\.000 mm where 2\.000"):
        read_series(paths, resample_irregular=True)
    volume = one(paths, allow_gaps=True)
    assert volume.shape == (5, 4, 9)
    assert volume.source.metadata["filled_slices"] == [2, 5, 6]
    assert compare_inside(volume, None) < 0.02


def test_unplaced_and_unsound_series_are_refused(write_series: Write) -> None:
    def unplaced(_: int, ds: Dataset) -> None:
        del ds.ImagePositionPatient

    def skewed(_: int, ds: Dataset) -> None:
        ds.ImageOrientationPatient = [1, 0, 0, 0.2, 0.98, 0]

    def shifted(k: int, ds: Dataset) -> None:
        if k == 3:
            ds.ImagePositionPatient = [0, -20, 37.5]

    def turned(_: int, ds: Dataset) -> None:
        ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    for edit in (unplaced, skewed, shifted, turned):
        with pytest.raises(GeometryError):
            read_series(write_series(STORED, edit=edit), resample_irregular=True, allow_gaps=True)
    assert one(write_series(STORED[:1], edit=unplaced)).is_2d


def test_what_is_no_image_is_refused_by_name(write_series: Write) -> None:
    def report(_: int, ds: Dataset) -> None:
        ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"

    def other_series(k: int, ds: Dataset) -> None:
        ds.SeriesInstanceUID = f"1.2.{k}"

    with pytest.raises(UnsupportedFormat, match="image planes"):
        read_series(write_series(STORED[:1], edit=report))
    paths = write_series(STORED[:1], edit=report)
    (stack,) = stacks([(paths[0], read_header(paths[0]))])
    with pytest.raises(UnsupportedFormat, match="document"):
        assemble(stack)
    with pytest.raises(UsageError, match="those of 7"):
        read_series(write_series(STORED, edit=other_series))


def test_memory_is_checked_before_allocation(write_series: Write) -> None:
    def edit(_: int, ds: Dataset) -> None:
        ds.Rows = ds.Columns = 65535

    with pytest.raises(LimitExceeded):
        read_series(write_series(STORED, edit=edit))
    with pytest.raises(LimitExceeded):
        read_series(write_series(STORED), limits=Limits(floor=1000, ratio=0))


def test_ct_equals_dcm2niix_and_simpleitk(data: Callable[[str], Path], tmp_path: Path) -> None:
    folder = data("ct_abdomen/example_ct_dicom")
    volume = one(list(folder.iterdir()))
    dcm2niix = pytest.importorskip("dcm2niix")
    subprocess.run(
        [dcm2niix.bin, "-o", tmp_path, "-f", "ct", folder], check=True, capture_output=True
    )
    image = nibabel.as_closest_canonical(nibabel.load(tmp_path / "ct.nii"))
    upright = reorient(volume, "RAS")
    assert np.abs(upright.affine - image.affine).max() < 1e-3
    assert np.array_equal(upright.data[0], np.asanyarray(image.dataobj))

    sitk = pytest.importorskip("SimpleITK")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    other = reader.Execute()
    assert np.array_equal(sitk.GetArrayFromImage(other), plain(volume))
    for index in ((0, 0, 0), (511, 300, 19)):
        ours = (volume.affine @ [*index, 1])[:3] * [-1, -1, 1]
        assert np.abs(ours - other.TransformIndexToPhysicalPoint(index)).max() < 1e-3
    assert (volume.modality, volume.unit, volume.data.dtype) == ("CT", "HU", np.int16)


def test_single_files_equal_pydicom() -> None:
    for name in ("CT_small.dcm", "MR_small.dcm", "examples_overlay.dcm", "693_J2KI.dcm"):
        path = Path(pydicom.data.get_testdata_file(name))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's remarks on its own odd test files
            ds = pydicom.dcmread(path)
            want = ds.pixel_array * float(ds.get("RescaleSlope", 1))
            want = want + float(ds.get("RescaleIntercept", 0))
        assert np.allclose(plain(one([path]))[0], want), name
