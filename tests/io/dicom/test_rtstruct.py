# SPDX-License-Identifier: Apache-2.0
"""Structure sets: write -> read as a law, real files, and references that lead nowhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon
from scipy import ndimage

from vesalius.errors import GeometryError, UnsupportedFormat, UsageError
from vesalius.geometry import reorient
from vesalius.io.dicom.assemble import read_series
from vesalius.io.dicom.header import read_header
from vesalius.io.dicom.rtstruct import read_rtstruct
from vesalius.io.dicom.rtstruct_writer import write_rtstruct
from vesalius.volume import LabelMap, Source, Volume

WriteSeries = Callable[..., list[Path]]

ORIENTATIONS = {
    "axial": ((1, 0, 0, 0, 1, 0), (0, 0, 2.5)),
    "sagittal": ((0, 1, 0, 0, 0, -1), (-1.5, 0, 0)),
    "oblique": ((0.8, 0.6, 0.0, -0.36, 0.48, 0.8), (1.44, -1.92, 1.8)),
}


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    orientation=st.sampled_from(sorted(ORIENTATIONS)),
    codes=st.sampled_from(["", "RAS", "PIL"]),
    smooth=st.sampled_from([0.0, 1.5]),
    seed=st.integers(0, 999),
)
def test_write_then_read_keeps_every_voxel(
    write_series: WriteSeries,
    tmp_path: Path,
    orientation: str,
    codes: str,
    smooth: float,
    seed: int,
) -> None:
    cosines, step = ORIENTATIONS[orientation]
    rng = np.random.default_rng(seed)
    files = write_series(np.zeros((3, 14, 11), np.int16), orientation=cosines, step=step)
    (source,) = read_series(files)
    noise = ndimage.gaussian_filter(rng.normal(size=(2, *source.shape)), [0, smooth, smooth, 0])
    layers = (noise > 0).astype(np.uint8) * np.array([1, 9], np.uint8).reshape(2, 1, 1, 1)
    layers[:, 0, 0, 0] = 1, 9
    wanted = LabelMap(layers, source.affine, names={1: "liver", 9: "target"})
    handed = reorient(wanted, codes) if codes else wanted
    rng.shuffle(files)
    path = write_rtstruct(handed, tmp_path / "rt.dcm", source_files=files)
    for reference in (source, reorient(source, "SAR")):
        found = read_rtstruct(path, reference)
        turned = reorient(found, "RAS").data
        truth = reorient(wanted, "RAS").data
        assert np.array_equal((turned == 1).any(0), truth[0] == 1)
        assert np.array_equal((turned == 9).any(0), truth[1] == 9)
    assert found.names == wanted.names


def test_real_label_map_survives_voxel_for_voxel(
    data: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = data("ct_abdomen")
    files = sorted((folder / "example_ct_dicom").iterdir())
    (source,) = read_series(files)
    image = nibabel.load(folder / "example_seg_dicom.nii.gz")
    labels = np.asarray(image.dataobj).astype(np.uint8)
    kept = np.where(np.isin(labels, (1, 2, 3, 5)), labels, 0)
    wanted = LabelMap(kept[None], image.affine, names={1: "spleen", 5: "liver"})
    path = write_rtstruct(wanted, tmp_path / "rt.dcm", source_files=files)
    found = read_rtstruct(path, source)
    placed = reorient(wanted, "LPS")
    assert np.array_equal(reorient(found, "LPS").data, placed.data)
    assert found.names[5] == "liver"


def test_contours_refer_to_existing_images(write_series: WriteSeries, tmp_path: Path) -> None:
    files = write_series(np.zeros((3, 8, 8), np.int16))
    (source,) = read_series(files)
    wanted = LabelMap(np.ones((1, *source.shape), np.uint8), source.affine, names={1: "all"})
    ds = pydicom.dcmread(write_rtstruct(wanted, tmp_path / "rt.dcm", source_files=files))
    positions = {}
    for file in files:
        header = read_header(file)
        assert header.position
        positions[header.sop_instance] = header.position[2]
    contours = ds.ROIContourSequence[0].ContourSequence
    assert len(contours) == 3
    for contour in contours:
        instance = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
        assert float(contour.ContourData[2]) == pytest.approx(positions[instance])
        assert contour.NumberOfContourPoints * 3 == len(contour.ContourData)
    series = (
        ds.ReferencedFrameOfReferenceSequence[0]
        .RTReferencedStudySequence[0]
        .RTReferencedSeriesSequence[0]
    )
    assert {item.ReferencedSOPInstanceUID for item in series.ContourImageSequence} == set(positions)
    assert ds.StructureSetROISequence[0].ReferencedFrameOfReferenceUID == (
        ds.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID
    )
    assert {element.value for element in ds if element.keyword == "Modality"} == {"RTSTRUCT"}


@pytest.mark.parametrize("name", ["invalid_reference_rt.dcm", "non_existent_reference_rt.dcm"])
def test_references_to_absent_images_are_refused(data: Callable[[str], Path], name: str) -> None:
    folder = data("dicom/rt_utils/mock_data")
    (source,) = read_series([folder / "ct_1.dcm", folder / "ct_2.dcm"])
    with pytest.raises(GeometryError, match="'ROI-1' is drawn on 1 image") as caught:
        read_rtstruct(folder / name, source)
    assert caught.value.evidence["kind"] == "absent-reference"


def test_real_structure_set_equals_matplotlib(data: Callable[[str], Path]) -> None:
    folder = data("dicom/rt_utils/mock_data")
    (source,) = read_series([folder / "ct_1.dcm", folder / "ct_2.dcm"])
    found = read_rtstruct(folder / "rt.dcm", source)
    contours = pydicom.dcmread(folder / "rt.dcm").ROIContourSequence[0].ContourSequence
    x, y = np.meshgrid(np.arange(512), np.arange(512), indexing="ij")
    centers = np.stack([x.ravel(), y.ravel()], 1) * 0.488281 - 125
    wanted = np.zeros(512 * 512, bool)
    for contour in contours:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        assert np.all(points[:, 2] == 60)
        wanted ^= Polygon(points[:, :2]).contains_points(centers)
    assert found.data[0, :, :, 1].any() == np.False_
    assert np.abs(found.data[0, :, :, 0].ravel().astype(int) - wanted).sum() == 0


def test_a_clinical_structure_set_is_drawn_on_a_bare_grid(data: Callable[[str], Path]) -> None:
    """98 slices are referenced; a grid that names no source files cannot be checked against."""
    path = data("dicom/dicompyler/testdata/example_data") / "rtss.dcm"
    affine = np.diag([-1.074219, -1.074219, 3.0, 1.0])
    affine[:3, 3] = [275, 524, -122.4407]
    reference = Volume(np.zeros((1, 512, 512, 99), np.int16), affine)
    found = read_rtstruct(path, reference)
    heart = next(value for value, name in found.names.items() if name == "Heart")
    milliliters = (found.data == heart).sum() * np.prod(reference.spacing) / 1000
    contours = pydicom.dcmread(path).ROIContourSequence
    area = 0.0
    for contour in next(c for c in contours if c.ReferencedROINumber == heart).ContourSequence:
        a, b = np.array(contour.ContourData, float).reshape(-1, 3)[:, :2].T
        area += abs(a @ np.roll(b, 1) - b @ np.roll(a, 1)) / 2
    assert milliliters == pytest.approx(area * 3 / 1000, rel=0.01)
    assert len(found.data) > 1  # breast, tumor bed and body overlap
    with pytest.raises(GeometryError, match="on none of the reference's"):
        read_rtstruct(path, Volume(reference.data[..., :10], affine))


def test_points_are_counted_and_nothing_else_is_refused(
    write_series: WriteSeries, tmp_path: Path
) -> None:
    files = write_series(np.zeros((3, 8, 8), np.int16))
    (source,) = read_series(files)
    labels = np.zeros((1, *source.shape), np.uint8)
    labels[0, 2:5, 2:5, 0], labels[0, 5:7, 5:7, 1] = 1, 2
    wanted = LabelMap(labels, source.affine, names={1: "liver", 2: "marker"})
    path = write_rtstruct(wanted, tmp_path / "rt.dcm", source_files=files)
    ds = pydicom.dcmread(path)
    ds.ROIContourSequence[1].ContourSequence[0].ContourGeometricType = "POINT"
    ds.save_as(path)
    found = read_rtstruct(path, source)
    assert found.source.metadata["skipped"] == {"marker": 1}
    assert (found.data == 1).sum() == 9
    assert not (found.data == 2).any()
    ds.ROIContourSequence[0].ContourSequence[0].ContourGeometricType = "OPEN_PLANAR"
    ds.save_as(path)
    with pytest.raises(UnsupportedFormat, match="no closed contour"):
        read_rtstruct(path, source)
    with pytest.raises(UnsupportedFormat, match="RT Structure Set"):
        read_rtstruct(files[0], source)


def test_off_grid_and_empty_maps_are_refused(write_series: WriteSeries, tmp_path: Path) -> None:
    files = write_series(np.zeros((3, 8, 8), np.int16))
    (source,) = read_series(files)
    ones = LabelMap(np.ones((1, *source.shape), np.uint8), source.affine, names={1: "x"})
    shifted = source.affine.copy()
    shifted[1, 3] += 0.35
    with pytest.raises(GeometryError, match="grid of the source"):
        write_rtstruct(replace(ones, affine=shifted), tmp_path / "a.dcm", source_files=files)
    with pytest.raises(UsageError, match="nothing to write"):
        write_rtstruct(
            LabelMap(ones.data * 0, source.affine), tmp_path / "a.dcm", source_files=files
        )
    bare = replace(source, source=Source())
    path = write_rtstruct(ones, tmp_path / "a.dcm", source_files=files)
    assert read_rtstruct(path, bare).data.all()
