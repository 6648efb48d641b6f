# SPDX-License-Identifier: Apache-2.0
"""Key images and presentation states: the right slice, the right place, and who made them."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vesalius.errors import CorruptFile, DataError, GeometryError, UsageError
from vesalius.geometry import reorient
from vesalius.io.dicom import presentation_state
from vesalius.io.dicom.assemble import read_series
from vesalius.io.dicom.derived import sign
from vesalius.io.dicom.display import displayed
from vesalius.io.dicom.header import read_header
from vesalius.io.dicom.key_images import COLORS, write_key_image
from vesalius.io.dicom.presentation_state import read_outlines, write_presentation_state
from vesalius.io.dicom.rtstruct_writer import write_rtstruct
from vesalius.io.maker import NOT_FOR_DIAGNOSIS, Maker
from vesalius.volume import LabelMap

MAKER = Maker(model="segment-01234567", run_id="0123456789abcdef", limits="Trained on MR.")
OBLIQUE = {"orientation": (0.8, 0.6, 0.0, -0.36, 0.48, 0.8), "step": (1.44, -1.92, 1.8)}


def dicom(path, *words):
    """Return what dcmtk says of a file."""
    if shutil.which("dcmdump") is None:
        pytest.skip("dcmtk is not installed")
    done = subprocess.run(
        ["dcmdump", "-q", *words, str(path)], capture_output=True, text=True, check=True
    )
    assert "E:" not in done.stderr
    return done.stdout


def assert_conforms(path):
    """Have David Clunie's checker, where Debian's dicom3tools is installed, find no error."""
    if shutil.which("dciodvfy") is not None:
        done = subprocess.run(
            ["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False
        )
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
        assert errors == []


@pytest.fixture
def case(write_series):
    """Return files, and a label map that is largest on the third of four slices."""
    files = write_series(
        np.arange(4 * 20 * 16, dtype=np.int16).reshape(4, 20, 16), modality="MR", **OBLIQUE
    )
    (source,) = read_series(files)
    labels = np.zeros((1, *source.shape), np.uint8)
    found = LabelMap(labels, source.affine, names={1: "liver", 2: "tumor"})
    placed = reorient(found, "LPS")
    by_number = sorted(files, key=lambda f: pydicom.dcmread(f).InstanceNumber)
    return by_number, source, placed


def labeled(source, number, box, value=1):
    """Return a label map on the source's grid with a box of `(column, row)` on one file's slice."""
    from vesalius.io.dicom.source_planes import source_planes

    files, source = source
    blank = LabelMap(np.zeros((1, *source.shape), np.uint8), source.affine, names={1: "liver"})
    planes = source_planes(blank, files)
    k = planes.index[number]
    planes.data[0, box[0], box[1], k] = value  # a view of the blank map
    return blank


def test_the_key_image_is_the_fullest_slice_outlined(case, tmp_path):
    files, source, _ = case
    found = labeled((files, source), 2, (slice(3, 9), slice(4, 12)))
    path = write_key_image(
        tmp_path / "key.dcm", source_files=files, maker=MAKER, label_map=found,
        words=["liver 1.5 ml"],
    )  # fmt: skip
    read = pydicom.dcmread(path)
    assert read.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert list(read.ImageType) == ["DERIVED", "SECONDARY"]
    assert read.BurnedInAnnotation == "YES"
    assert NOT_FOR_DIAGNOSIS in read.DerivationDescription
    (reference,) = read.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == pydicom.dcmread(files[2]).SOPInstanceUID
    (made,) = read.ContributingEquipmentSequence
    assert made.ManufacturerModelName == MAKER.model
    assert MAKER.run_id in made.ContributionDescription
    assert "Trained on MR." in made.ContributionDescription
    pixels = read.pixel_array
    factor = 512 // 20
    assert pixels.shape[1] == 16 * factor
    assert pixels.shape[0] > 20 * factor  # the margin hides nothing
    outline = (pixels[: 20 * factor] == COLORS[0]).all(axis=-1)
    rows, columns = np.nonzero(outline)
    width = factor // 2
    assert abs(columns.min() - 3 * factor) <= width
    assert abs(columns.max() - 9 * factor) <= width
    assert abs(rows.min() - 4 * factor) <= width
    assert abs(rows.max() - 12 * factor) <= width
    inside = pixels[8 * factor + factor // 2, 6 * factor + factor // 2]
    gray = displayed(files[2], read_header(files[2]))[8, 6]
    assert np.abs(inside.astype(int) - int(gray)).max() <= 3
    assert pixels[20 * factor :].max() > 200  # words in the margin
    assert_conforms(path)
    assert "SecondaryCapture" in dicom(path, "+P", "0008,0016")


def test_without_structures_it_is_the_middle_slice(case, tmp_path):
    files, _, _ = case
    path = write_key_image(
        tmp_path / "key.dcm", source_files=files[::-1], maker=MAKER, words=["malignant 0.83"]
    )
    (reference,) = pydicom.dcmread(path).SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == pydicom.dcmread(files[2]).SOPInstanceUID
    with pytest.raises(UsageError, match="got none"):
        write_key_image(tmp_path / "no.dcm", source_files=[], maker=MAKER)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 999), codes=st.sampled_from(["", "RAS", "PIL"]))
def test_outlines_enclose_the_voxels_that_were_labeled(write_series, tmp_path, seed, codes):
    rng = np.random.default_rng(seed)
    files = write_series(np.zeros((3, 9, 7), np.int16), **OBLIQUE)
    (source,) = read_series(files)
    data = (rng.random((2, *source.shape)) > 0.5).astype(np.uint8) * np.array([1, 5])[
        :, None, None, None
    ].astype(np.uint8)
    wanted = LabelMap(data, source.affine, names={1: "liver", 5: "tumor"})
    handed = reorient(wanted, codes) if codes else wanted
    path = write_presentation_state(
        handed, tmp_path / "pr.dcm", source_files=files, maker=MAKER
    )  # checks itself, by what it reads back
    found = read_outlines(path)
    assert set(found) == {"liver", "tumor"}
    uids = {str(pydicom.dcmread(file).SOPInstanceUID) for file in files}
    assert {uid for places in found.values() for uid, _ in places} <= uids


def test_a_presentation_state_says_what_it_is(case, tmp_path):
    files, source, _ = case
    found = labeled((files, source), 1, (slice(0, 1), slice(0, 1)))
    path = write_presentation_state(found, tmp_path / "pr.dcm", source_files=files, maker=MAKER)
    read = pydicom.dcmread(path)
    assert (read.Modality, read.PresentationLUTShape) == ("PR", "IDENTITY")
    (annotation,) = read.GraphicAnnotationSequence
    (drawn,) = annotation.GraphicObjectSequence
    # The first pixel's corners: its center is 0.5, its outer corner 0 (PS3.3 C.10.5.1.2)
    points = np.reshape(drawn.GraphicData, (-1, 2))
    assert sorted({tuple(point) for point in points.tolist()}) == [
        (0.0, 0.5), (0.5, 0.0), (0.5, 1.0), (1.0, 0.5)
    ]  # fmt: skip
    assert read.GraphicLayerSequence[0].GraphicLayerDescription == "liver"
    (image,) = annotation.ReferencedImageSequence
    assert image.ReferencedSOPInstanceUID == pydicom.dcmread(files[1]).SOPInstanceUID
    assert MAKER.run_id in read.ContributingEquipmentSequence[0].ContributionDescription
    assert_conforms(path)
    assert "GrayscaleSoftcopyPresentationState" in dicom(path, "+P", "0008,0016")


def test_what_no_state_can_say_is_refused(case, write_series, tmp_path, monkeypatch):
    files, source, _ = case
    empty = LabelMap(np.zeros((1, *source.shape), np.uint8), source.affine, names={1: "liver"})
    with pytest.raises(UsageError, match="nothing is labeled"):
        write_presentation_state(empty, tmp_path / "a.dcm", source_files=files, maker=MAKER)
    moved = LabelMap(empty.data | 1, source.affine + np.eye(4)[:, [3]] * 0 + 1e-1, names={1: "a"})
    with pytest.raises(GeometryError, match="does not lie on"):
        write_presentation_state(moved, tmp_path / "a.dcm", source_files=files, maker=MAKER)
    color = write_series(np.zeros((1, 4, 4, 3), np.uint8))
    (volume,) = read_series(color)
    found = LabelMap(np.ones((1, *volume.shape), np.uint8), volume.affine, names={1: "a"})
    with pytest.raises(UsageError, match="gray images"):
        write_presentation_state(found, tmp_path / "a.dcm", source_files=color, maker=MAKER)

    def scaled(k, ds):
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = k + 1, 0, "US"

    pet = write_series(np.ones((2, 4, 4), np.int16), edit=scaled)
    (volume,) = read_series(pet)
    found = LabelMap(np.ones((1, *volume.shape), np.uint8), volume.affine, names={1: "a"})
    with pytest.raises(DataError, match="choose dicom-seg"):
        write_presentation_state(found, tmp_path / "a.dcm", source_files=pet, maker=MAKER)
    shifted = labeled((files, source), 1, (slice(0, 3), slice(0, 2)))
    monkeypatch.setattr(
        presentation_state, "outlines", lambda _: [np.array([[0, 0], [4, 0], [4, 4]])]
    )
    with pytest.raises(CorruptFile, match="was removed"):
        write_presentation_state(shifted, tmp_path / "b.dcm", source_files=files, maker=MAKER)
    assert not (tmp_path / "b.dcm").exists()


def test_signing_keeps_all_and_adds_the_maker(case, tmp_path):
    files, source, _ = case
    found = labeled((files, source), 1, (slice(2, 5), slice(2, 5)))
    path = write_rtstruct(found, tmp_path / "rt.dcm", source_files=files)
    before = pydicom.dcmread(path)
    after = pydicom.dcmread(sign(path, MAKER))
    (made,) = after.ContributingEquipmentSequence
    assert made.SoftwareVersions == MAKER.version
    del after.ContributingEquipmentSequence
    assert after == before
