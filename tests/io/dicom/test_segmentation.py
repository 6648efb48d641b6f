# SPDX-License-Identifier: Apache-2.0
"""DICOM Segmentations against dcmqi's and highdicom's readings, and write -> read as a law."""

from __future__ import annotations

import subprocess
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vesalius.errors import GeometryError, LimitExceeded, UnsupportedFormat, UsageError
from vesalius.geometry import LPS_TO_RAS, reorient
from vesalius.io.dicom.assemble import read_series
from vesalius.io.dicom.header import read_header
from vesalius.io.dicom.segmentation import on_reference, read_segmentation
from vesalius.io.dicom.segmentation_writer import write_segmentation
from vesalius.volume import LabelMap, Volume

WriteSeries = Callable[..., list[Path]]


def nrrd(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return values (i, j, k) and the RAS affine of an NRRD file, by SimpleITK."""
    image = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), LPS_TO_RAS @ affine


def flat(label_map: LabelMap) -> np.ndarray:
    assert len(label_map.data) == 1
    return label_map.data[0]


def on_grid(label_map: LabelMap, values: np.ndarray, affine: np.ndarray) -> LabelMap:
    return on_reference(label_map, Volume(values[None], affine))


@pytest.mark.parametrize(
    ("file", "reference"),
    [
        ("liver.dcm", "liver_seg.nrrd"),
        ("24x38x3/seg/label.seg", "24x38x3/nrrd/label.nrrd"),
        ("23x38x3/seg/label.seg", "23x38x3/nrrd/label.nrrd"),
        ("sparse-labelmap-noppv.dcm", "sparse_labelmap_noppv_seg.nrrd"),
    ],
)
def test_real_segmentations_equal_their_references(
    data: Callable[[str], Path], file: str, reference: str
) -> None:
    folder = data("dicom/dcmqi/segmentations")
    found = read_segmentation(folder / file)
    values, affine = nrrd(folder / reference)
    assert np.abs(found.affine - affine).max() < 1e-3
    assert np.array_equal(flat(found), values)
    assert set(found.names.values()) == {"Liver"}


def test_padding_is_background(data: Callable[[str], Path]) -> None:
    folder = data("dicom/dcmqi/segmentations")
    values, _ = nrrd(folder / "sparse_labelmap_ppv5_seg.nrrd")
    found = read_segmentation(folder / "sparse-labelmap-ppv5.dcm")
    assert np.array_equal(flat(found), np.where(values == 5, 0, values))


def test_overlapping_segments_lie_in_layers(data: Callable[[str], Path]) -> None:
    folder = data("dicom/dcmqi/segmentations")
    found = read_segmentation(folder / "partial_overlaps.dcm")
    references = [nrrd(folder / f"partial_overlaps-{n}.nrrd")[0] for n in (1, 2, 3)]
    assert len(found.data) == 3
    for value in found.names:
        wanted = np.any([reference == value for reference in references], axis=0)
        assert np.array_equal((found.data == value).any(0), wanted)
    assert found.names[4] == "LIGHT_BLUE"
    segments = found.source.metadata["segments"]
    assert isinstance(segments, dict)
    assert segments[1]["type"][1]


def test_far_gaps_are_filled_with_background(data: Callable[[str], Path]) -> None:
    path = data("dicom/highdicom/test_files") / "seg_image_ct_binary_overlap.dcm"
    found = read_segmentation(path)
    ds = pydicom.dcmread(path)
    assert found.shape == (16, 16, 165)  # -99.48 ... 105.52 mm in steps of 1.25
    for frame, item in zip(ds.pixel_array, ds.PerFrameFunctionalGroupsSequence, strict=True):
        z = item.PlanePositionSequence[0].ImagePositionPatient[2]
        k = round((float(z) - found.affine[2, 3]) / 1.25)
        number = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        assert np.array_equal((found.data[..., k] == number).any(0), frame.T == 1)


def test_fractions_are_cut_at_the_threshold(data: Callable[[str], Path]) -> None:
    path = data("dicom/highdicom/test_files") / "seg_image_ct_true_fractional.dcm"
    fractions = pydicom.dcmread(path).pixel_array.transpose(2, 1, 0) / 255
    for threshold in (0.2, 0.5, 0.9):
        found = read_segmentation(path, threshold=threshold)
        assert np.array_equal(flat(found) == 1, fractions >= threshold)


def test_radiograph_without_position(data: Callable[[str], Path]) -> None:
    path = data("dicom/highdicom/test_files") / "seg_image_cr_binary.dcm"
    found = read_segmentation(path)
    assert not found.calibrated
    assert np.array_equal(flat(found)[..., 0], pydicom.dcmread(path).pixel_array.T)


def test_what_is_no_segmentation_is_refused_by_name(data: Callable[[str], Path]) -> None:
    folder = data("dicom/highdicom/test_files")
    for name in ("seg_image_sm_dots.dcm", "seg_image_sm_dots_tiled_full.dcm"):
        with pytest.raises(UnsupportedFormat, match="slide"):
            read_segmentation(folder / name)
    with pytest.raises(UnsupportedFormat, match="Segmentation Storage"):
        read_segmentation(folder / "ct_image.dcm")


def test_reference_off_the_grid_is_refused(data: Callable[[str], Path]) -> None:
    path = data("dicom/dcmqi/segmentations") / "liver.dcm"
    found = read_segmentation(path)
    shifted = found.affine.copy()
    shifted[0, 3] += 0.3
    with pytest.raises(GeometryError, match="grid of the reference"):
        read_segmentation(path, reference=Volume(found.data, shifted))
    with pytest.raises(GeometryError, match="outside"):
        read_segmentation(path, reference=Volume(found.data[:, :, :200], found.affine))
    flipped = reorient(Volume(found.data, found.affine), "SAR")
    placed = read_segmentation(path, reference=flipped)
    assert np.array_equal(placed.data, flipped.data)


ORIENTATIONS = {
    "axial": ((1, 0, 0, 0, 1, 0), (0, 0, 2.5)),
    "axial, feet last": ((1, 0, 0, 0, 1, 0), (0, 0, -2.5)),
    "coronal": ((1, 0, 0, 0, 0, -1), (0, 2.0, 0)),
    "oblique": (
        (0.8, 0.6, 0.0, -0.36, 0.48, 0.8),
        (0.48 * 3, -0.64 * 3, 0.6 * 3),
    ),
}


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(["BINARY", "LABELMAP"]),
    compressed=st.booleans(),
    orientation=st.sampled_from(sorted(ORIENTATIONS)),
    codes=st.sampled_from(["", "RAS", "PIL"]),
    seed=st.integers(0, 999),
)
def test_write_then_read_keeps_voxels_and_place(
    write_series: WriteSeries,
    tmp_path: Path,
    kind: str,
    compressed: bool,
    orientation: str,
    codes: str,
    seed: int,
) -> None:
    cosines, step = ORIENTATIONS[orientation]
    rng = np.random.default_rng(seed)
    files = write_series(rng.integers(0, 99, (4, 9, 7)).astype(np.int16), orientation=cosines,
                         step=step)  # fmt: skip
    (source,) = read_series(files)
    labels = rng.integers(0, 3, source.shape).astype(np.uint8)
    labels[..., int(rng.integers(4))] = 0  # an omitted empty frame
    labels[0, 0, 0] = 2
    wanted = LabelMap(labels[None], source.affine, names={1: "liver", 2: "odd one"})
    given_map = reorient(wanted, codes) if codes else wanted
    rng.shuffle(files)
    path = write_segmentation(
        given_map, tmp_path / "seg.dcm", source_files=files, kind=kind, compressed=compressed
    )
    found = read_segmentation(path, reference=source)
    assert np.array_equal(found.data, wanted.data)
    assert np.abs(found.affine - source.affine).max() < 1e-6
    assert found.names == wanted.names
    independent = hd.seg.segread(path)
    instances = [str(read_header(file).sop_instance) for file in files]
    frames = independent.get_pixels_by_source_instance(
        instances, combine_segments=True, assert_missing_frames_are_empty=True
    )
    for file, frame in zip(files, frames, strict=True):
        k = int(np.argmin([abs(slice_place(source, n) - place_of(file)) for n in range(4)]))
        assert np.array_equal(frame, labels[..., k].T)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize(
    ("thickness", "between", "step"), [(5, None, 5), (5, 6, 6), (None, None, 1)]
)
def test_one_slice_keeps_its_depth(
    write_series: WriteSeries,
    tmp_path: Path,
    kind: str,
    thickness: float | None,
    between: float | None,
    step: float,
) -> None:
    def edit(_: int, data_set: pydicom.Dataset) -> None:
        data_set.SliceThickness = thickness
        if thickness is None:
            del data_set.SliceThickness
        if between is not None:
            data_set.SpacingBetweenSlices = between

    files = write_series(np.zeros((1, 9, 7), np.int16), edit=edit)
    (source,) = read_series(files)
    labels = np.zeros(source.shape, np.uint8)
    labels[1:4, 2:5] = 1
    wanted = LabelMap(labels[None], source.affine, names={1: "liver"})
    path = write_segmentation(wanted, tmp_path / "seg.dcm", source_files=files, kind=kind)
    found = read_segmentation(path)  # without its image: the file alone says where it lies
    assert np.array_equal(found.data, wanted.data)
    assert found.spacing == pytest.approx((0.7, 0.8, step))
    assert np.abs(found.affine - source.affine).max() < 1e-6


def slice_place(volume: Volume, k: int) -> float:
    normal = volume.affine[:3, 2] / np.linalg.norm(volume.affine[:3, 2])
    return float(normal @ (volume.affine @ [0, 0, k, 1])[:3])


def place_of(file: Path) -> float:
    header = read_header(file)
    assert header.orientation
    assert header.position
    normal = np.cross(header.orientation[:3], header.orientation[3:])
    return float(normal @ header.position)


def test_overlaps_are_written_as_binary_only(write_series: WriteSeries, tmp_path: Path) -> None:
    files = write_series(np.zeros((3, 8, 8), np.int16))
    (source,) = read_series(files)
    layers = np.zeros((2, *source.shape), np.uint8)
    layers[0, 1:5, 1:5, 1] = 1
    layers[1, 3:7, 3:7, 1] = 7
    wanted = LabelMap(layers, source.affine, names={1: "liver", 7: "lesion"})
    with pytest.raises(UsageError, match="BINARY"):
        write_segmentation(wanted, tmp_path / "a.dcm", source_files=files, kind="LABELMAP")
    path = write_segmentation(wanted, tmp_path / "a.dcm", source_files=files)
    found = read_segmentation(path, reference=source)
    assert np.array_equal((found.data == 1).any(0), layers[0] == 1)
    assert np.array_equal((found.data == 2).any(0), layers[1] == 7)
    assert found.names == {1: "liver", 2: "lesion"}


def test_it_refers_to_its_source(write_series: WriteSeries, tmp_path: Path) -> None:
    files = write_series(
        np.zeros((3, 8, 8), np.int16),
        edit=lambda _, ds: setattr(ds, "FrameOfReferenceUID", "1.2.9"),
    )
    (source,) = read_series(files)
    wanted = LabelMap(np.ones((1, *source.shape), np.uint8), source.affine, names={1: "spleen"})
    path = write_segmentation(
        wanted, tmp_path / "a.dcm", source_files=files, algorithm="tester", version="9.9"
    )
    ds = pydicom.dcmread(path)
    original = pydicom.dcmread(files[0])
    assert ds.StudyInstanceUID == original.StudyInstanceUID
    assert ds.PatientID == original.PatientID
    assert ds.FrameOfReferenceUID == "1.2.9"
    referenced = {
        item.ReferencedSOPInstanceUID
        for item in ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referenced == {read_header(file).sop_instance for file in files}
    segment = ds.SegmentSequence[0]
    assert segment.SegmentAlgorithmName == "tester"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "78961009"
    assert ds.SoftwareVersions == "9.9"
    assert ds.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1.99"


def test_dcmqi_reads_the_same(write_series: WriteSeries, tmp_path: Path) -> None:
    tool = Path(sysconfig.get_path("scripts")) / "segimage2itkimage"
    if not tool.exists():
        pytest.skip("dcmqi is not installed")
    files = write_series(np.zeros((4, 12, 10), np.int16))
    (source,) = read_series(files)
    labels = np.random.default_rng(3).integers(0, 4, source.shape).astype(np.uint8)
    wanted = LabelMap(labels[None], source.affine, names={1: "a", 2: "b", 3: "c"})
    for kind in ("BINARY", "LABELMAP"):
        out = tmp_path / kind
        out.mkdir()
        path = write_segmentation(wanted, out / "seg.dcm", source_files=files, kind=kind)  # type: ignore[arg-type]
        subprocess.run(
            [tool, "--inputDICOM", path, "--outputDirectory", out, "-t", "nrrd",
             "--mergeSegments"], check=True, capture_output=True,
        )  # fmt: skip
        values, affine = nrrd(next(out.glob("*.nrrd")))
        assert np.array_equal(values, labels)
        assert np.abs(affine - source.affine).max() < 1e-3


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_enhanced_source(data: Callable[[str], Path], tmp_path: Path, kind: str) -> None:
    file = data("dicom/dcmqi/segmentations") / "24x38x3/multiframe/mf.dcm"
    (source,) = read_series([file])
    labels = np.random.default_rng(0).integers(0, 2, (1, *source.shape)).astype(np.uint8)
    wanted = LabelMap(labels, source.affine, names={1: "liver"})
    path = write_segmentation(wanted, tmp_path / "a.dcm", source_files=[file], kind=kind)  # type: ignore[arg-type]
    found = read_segmentation(path, reference=source)
    assert np.array_equal(found.data, labels)


@pytest.mark.parametrize("change", ["shift", "crop", "spacing", "turn"])
def test_label_maps_off_the_source_s_grid_are_refused(
    write_series: WriteSeries, tmp_path: Path, change: str
) -> None:
    files = write_series(np.zeros((4, 8, 8), np.int16))
    (source,) = read_series(files)
    affine, data = source.affine.copy(), np.ones((1, *source.shape), np.uint8)
    if change == "shift":
        affine[0, 3] += 0.4 * source.spacing[0]
    elif change == "crop":
        data = data[:, :6]
    elif change == "spacing":
        affine[:3, :3] *= 1.02
    else:
        affine[:3, :3] = affine[:3, :3] @ [[0.995, -0.0998, 0], [0.0998, 0.995, 0], [0, 0, 1]]
    with pytest.raises(GeometryError, match="grid of the source"):
        write_segmentation(
            LabelMap(data, affine, names={1: "x"}), tmp_path / "a.dcm", source_files=files
        )
    assert not list(tmp_path.iterdir())


def test_labeled_slices_need_a_source_image(write_series: WriteSeries, tmp_path: Path) -> None:
    files = write_series(np.zeros((4, 8, 8), np.int16))
    (source,) = read_series(files)
    labels = np.ones((1, *source.shape), np.uint8)
    wanted = LabelMap(labels, source.affine, names={1: "x"})
    few = [file for file in files if place_of(file) != place_of(files[1])]
    with pytest.raises(GeometryError, match="1 labeled slices"):
        write_segmentation(wanted, tmp_path / "a.dcm", source_files=few)
    labels[..., 1] = 0
    path = write_segmentation(wanted, tmp_path / "a.dcm", source_files=few)
    assert np.array_equal(read_segmentation(path, reference=source).data, labels)


def test_arguments_are_checked(write_series: WriteSeries, tmp_path: Path) -> None:
    files = write_series(np.zeros((2, 8, 8), np.int16))
    (source,) = read_series(files)
    empty = LabelMap(np.zeros((1, *source.shape), np.uint8), source.affine)
    with pytest.raises(UsageError, match="nothing to write"):
        write_segmentation(empty, tmp_path / "a.dcm", source_files=files)
    named = replace(empty, names={1: "liver"})
    with pytest.raises(UsageError, match="source_files"):
        write_segmentation(named, tmp_path / "a.dcm", source_files=[])
    with pytest.raises(UsageError, match="kind"):
        write_segmentation(named, tmp_path / "a.dcm", source_files=files, kind="FRACTIONAL")  # type: ignore[arg-type]


def test_an_empty_prediction_is_written_and_read(write_series: WriteSeries, tmp_path: Path) -> None:
    files = write_series(np.zeros((3, 8, 8), np.int16))
    (source,) = read_series(files)
    nothing = LabelMap(np.zeros((1, *source.shape), np.uint8), source.affine, names={1: "liver"})
    for kind in ("BINARY", "LABELMAP"):
        path = write_segmentation(nothing, tmp_path / "a.dcm", source_files=files, kind=kind)  # type: ignore[arg-type]
        found = read_segmentation(path, reference=source)
        assert not found.data.any()
        assert found.names == {1: "liver"}


def test_many_items_in_a_small_file_are_refused(
    data: Callable[[str], Path], tmp_path: Path
) -> None:
    ds = pydicom.dcmread(data("dicom/dcmqi/segmentations") / "liver.dcm")
    ds.SegmentSequence = [ds.SegmentSequence[0]]
    item = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
    ds.add_new(0x00090010, "LO", "PRIVATE")
    ds.add_new(0x00091001, "OB", item * 60_000)
    path = tmp_path / "items.dcm"
    ds.save_as(path)
    with pytest.raises(LimitExceeded, match="sequence items"):
        read_segmentation(path)
