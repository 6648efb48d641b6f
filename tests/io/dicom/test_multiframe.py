# SPDX-License-Identifier: Apache-2.0
"""Multi-frame files: references of dcm2niix, and files written here frame by frame."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pydicom.data
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from vesalius.errors import CorruptFile
from vesalius.geometry import reorient
from vesalius.io.dicom import read_header, read_series, stacks
from vesalius.volume import Volume

STORED = np.random.default_rng(1).integers(0, 4000, (2, 4, 5, 6)).astype(np.uint16)  # (t, k, r, c)


def upright(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Return data (i, j, k, t) and affine in RAS+ order."""
    turned = reorient(volume, "RAS")
    return np.moveaxis(turned.data, 0, -1), turned.affine


def reference(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nibabel.as_closest_canonical(nibabel.load(path))
    values = np.asanyarray(image.dataobj)
    return (values if values.ndim == 4 else values[..., None]), image.affine


def test_siemens_time_series_over_four_files_equals_its_reference(
    data: Callable[[str], Path],
) -> None:
    paths = sorted((data("dicom/enhanced") / "In/Siemens/XA10").iterdir())
    (volume,) = read_series(paths[::-1])
    values, affine = upright(volume)
    want, want_affine = reference(data("dicom/enhanced") / "Ref/Siemens_REST1_w_SMS_PF7-8_6.nii")
    assert volume.channels == ("t0", "t1", "t2", "t3")
    assert np.array_equal(values, want)
    assert np.abs(affine - want_affine).max() < 1e-3


def test_philips_field_map_equals_its_reference(data: Callable[[str], Path]) -> None:
    folder = data("dicom/enhanced")
    magnitude, field = read_series(list((folder / "In/Philips").iterdir()))
    values, affine = upright(field)
    want, want_affine = reference(folder / "Ref/Philips_WIP_B0_NS_801_e2_fieldmaphz.nii")
    assert np.abs(affine - want_affine).max() < 1e-3
    assert np.abs(values - want).max() < 0.01  # hertz
    assert field.unit == "Hz"
    # The reference scales the magnitude by a private element: one factor for all voxels.
    values, _ = upright(magnitude)
    want, _ = reference(folder / "Ref/Philips_WIP_B0_NS_801_e1.nii")
    stored = want > 0
    factors = want[stored] / values[stored]
    assert np.ptp(factors) < 1e-4 * factors.mean()


def enhanced(folder: Path, edit: Callable[[Dataset], Any] | None = None, order: Any = None) -> Path:
    """Write an Enhanced MR file: 2 time points of 4 slices, frames in any order, own slopes."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4.1", "1.2.3.4.5"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    ds.Modality, ds.ImageType = "MR", ["ORIGINAL", "PRIMARY", "M", "NONE"]
    ds.Rows, ds.Columns, ds.NumberOfFrames = 5, 6, 8
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    shared = Dataset()
    shared.PlaneOrientationSequence = [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    shared.PixelMeasuresSequence = [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = [0.8, 0.7]
    shared.PixelMeasuresSequence[0].SliceThickness = 9
    ds.SharedFunctionalGroupsSequence = [shared]
    frames, pixels = [], []
    for n in range(8) if order is None else order:
        t, k = divmod(n, 4)
        frame = Dataset()
        frame.PlanePositionSequence = [Dataset()]
        frame.PlanePositionSequence[0].ImagePositionPatient = [1.5 - 3.0 * k, 2, 3]
        frame.FrameContentSequence = [Dataset()]
        frame.FrameContentSequence[0].TemporalPositionIndex = t + 1
        frame.FrameContentSequence[0].StackID = "1"
        frame.FrameContentSequence[0].InStackPositionNumber = k + 1
        frame.PixelValueTransformationSequence = [Dataset()]
        frame.PixelValueTransformationSequence[0].RescaleSlope = k + 0.5
        frame.PixelValueTransformationSequence[0].RescaleIntercept = -t
        frames.append(frame)
        pixels.append(STORED[t, k])
    ds.PerFrameFunctionalGroupsSequence = frames
    ds.PixelData = np.stack(pixels).tobytes()
    ds["PixelData"].VR = "OW"
    if edit is not None:
        edit(ds)
    path = folder / "enhanced.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_frames_in_any_order_give_one_volume(tmp_path: Path, seed: int | None) -> None:
    order = list(range(8))
    if seed is not None:
        random.Random(seed).shuffle(order)
    (volume,) = read_series([enhanced(tmp_path, order=order)])
    assert volume.channels == ("t0", "t1")
    assert volume.spacing == pytest.approx((0.7, 0.8, 3.0))
    # row x column points to -x in LPS, as the frames do: k is the written order
    scale = np.arange(4)[:, None, None] + 0.5
    want = STORED * scale - np.arange(2)[:, None, None, None]
    assert np.allclose(volume.data.transpose(0, 3, 2, 1), want)
    corner = (volume.affine @ [5, 4, 3, 1])[:3] * [-1, -1, 1]
    assert np.allclose(corner, [1.5 - 9, 2 + 5 * 0.7, 3 - 4 * 0.8], atol=1e-6)


def test_echo_and_component_of_frames_make_stacks(tmp_path: Path) -> None:
    def edit(ds: Dataset) -> None:
        for n, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
            frame.FrameContentSequence[0].TemporalPositionIndex = 1
            frame.MREchoSequence = [Dataset()]
            frame.MREchoSequence[0].EffectiveEchoTime = 4.5 if n < 4 else 9.0

    result = read_series([enhanced(tmp_path, edit)])
    assert [volume.source.metadata["label"] for volume in result] == ["echo 4.5", "echo 9"]
    assert [volume.shape for volume in result] == [(6, 5, 4)] * 2


def test_a_missing_frame_is_a_gap(tmp_path: Path) -> None:
    def edit(ds: Dataset) -> None:
        kept = [0, 1, 3]
        ds.PerFrameFunctionalGroupsSequence = [ds.PerFrameFunctionalGroupsSequence[n] for n in kept]
        ds.NumberOfFrames = 3
        ds.PixelData = STORED[0, kept].tobytes()

    path = enhanced(tmp_path, edit)
    (stack,) = stacks([(path, read_header(path))])
    assert [problem.name for problem in stack.problems] == ["missing-slices"]


def test_more_frames_than_the_file_holds_are_refused(tmp_path: Path) -> None:
    def groups(ds: Dataset) -> None:
        ds.NumberOfFrames = 1_000_000

    def cine(ds: Dataset) -> None:
        del ds.PerFrameFunctionalGroupsSequence
        ds.NumberOfFrames = 1_000_000

    for edit in (groups, cine):
        path = enhanced(tmp_path, edit)
        with pytest.raises(CorruptFile, match="1,000,000"):
            stacks([(path, read_header(path))])


def test_cine_frames_are_time_points() -> None:
    path = Path(pydicom.data.get_testdata_file("examples_ybr_color.dcm"))
    (volume,) = read_series([path])
    assert volume.shape == (320, 240, 1)
    assert len(volume.data) == 30 * 3
    assert volume.channels[:4] == ("t0 red", "t0 green", "t0 blue", "t1 red")
    assert volume.calibrated


def test_a_dose_grid_lies_along_its_offsets() -> None:
    path = Path(pydicom.data.get_testdata_file("rtdose.dcm"))
    ds = pydicom.dcmread(path)
    (volume,) = read_series([path])
    want = ds.pixel_array * float(ds.DoseGridScaling)
    assert np.allclose(volume.data[0].transpose(2, 1, 0), want, rtol=1e-6)
    assert volume.unit == ""  # the file says RELATIVE
    first = np.array(ds.ImagePositionPatient, float) * [-1, -1, 1]
    assert np.allclose(volume.affine[:3, 3], first)
    offsets = [float(x) for x in ds.GridFrameOffsetVector]
    assert volume.spacing[2] == pytest.approx(offsets[1] - offsets[0])


def test_a_legacy_converted_file_equals_its_single_frames(data: Callable[[str], Path]) -> None:
    folder = data("dicom/dcmqi") / "segmentations/24x38x3"
    (multi,) = read_series([folder / "multiframe/mf.dcm"])
    (single,) = read_series(list((folder / "image").iterdir()))
    assert np.array_equal(multi.data, single.data)
    assert np.abs(multi.affine - single.affine).max() < 1e-6
