# SPDX-License-Identifier: Apache-2.0
"""The public functions of `vesalius.io`: one door for every packing, cheap, with clear refusals."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from vesalius import io
from vesalius.errors import CorruptFile, UnsupportedFormat, UsageError
from vesalius.geometry import same_grid
from vesalius.volume import LabelMap, Volume

VOLUME = Volume(np.zeros((1, 4, 4, 4), np.int16), np.eye(4))
LABELS = LabelMap(np.zeros((1, 4, 4, 4), np.uint8), np.eye(4), names={1: "liver"})


def test_importing_and_reading_load_only_what_is_needed(tmp_path):
    path = io.write(Volume(np.zeros((1, 4, 4, 1), np.uint8), np.eye(4)), tmp_path / "a.png")
    code = (
        "import sys, vesalius.io\n"
        "heavy = {'torch', 'lancedb', 'pandas', 'SimpleITK', 'highdicom', 'matplotlib'}\n"
        "light = {'numpy', 'PIL', 'pydicom', 'nibabel', 'scipy', 'h5py'}\n"
        "assert not (heavy | light) & set(sys.modules), (heavy | light) & set(sys.modules)\n"
        f"vesalius.io.read({str(path)!r})\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("path", "options", "words"),
    [
        ("a.jpg", {}, "jpeg.*not written"),
        ("a.xyz", {}, "suffix of 'a.xyz'"),
        ("a.nii", {"format": "nifty"}, "Did you mean 'nifti'"),
        ("a.dcm", {}, "dicom-seg"),
        ("a.nii", {"compression": 3}, "no option compression"),
        ("a.dcm", {"format": "dicom-seg"}, "LabelMap"),
    ],
)
def test_what_cannot_be_written_says_why(tmp_path, path, options, words):
    with pytest.raises(UsageError, match=words):
        io.write(VOLUME, tmp_path / path, **options)
    assert not list(tmp_path.iterdir())


def test_dicom_objects_need_their_sources_and_known_options(tmp_path):
    for name in ("dicom-seg", "rtstruct"):
        with pytest.raises(UsageError, match="source_files"):
            io.write(LABELS, tmp_path / "a.dcm", format=name)
        with pytest.raises(UsageError, match="Did you mean 'series_number'"):
            io.write(LABELS, tmp_path / "a.dcm", format=name, source_files=[], series_nummer=1)


def test_member_belongs_to_npz(tmp_path):
    path = io.write(VOLUME, tmp_path / "a.nii")
    with pytest.raises(UsageError, match="NPZ"):
        io.read(path, member="train_images[0]")


def test_lists_and_folders_are_dicom(tmp_path):
    io.write(VOLUME, tmp_path / "a.nii")
    with pytest.raises(UnsupportedFormat, match="no DICOM"):
        io.read(tmp_path)
    with pytest.raises(UsageError, match="empty"):
        io.read([])


def test_a_folder_may_hold_more_than_dicom(tmp_path):
    from pydicom.data import get_testdata_file

    shutil.copy(get_testdata_file("CT_small.dcm"), tmp_path / "IM1")
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "notes.txt").write_text("seen")
    volume = io.read(tmp_path)
    assert volume.shape == (128, 128, 1)
    assert volume.source.files == (str(tmp_path / "IM1"),)
    with pytest.raises(UsageError, match=r"gone\.dcm: cannot be opened"):
        io.read([tmp_path / "IM1", tmp_path / "gone.dcm"])


def test_labels_are_taken_from_floats_that_are_integers(tmp_path):
    data = np.array([0, 1, 2, 300], np.float32).reshape(1, 4, 1, 1)
    path = io.write(Volume(data, np.eye(4)), tmp_path / "a.nii")
    found = io.read_labels(path)
    assert found.data.dtype == np.int32
    np.testing.assert_array_equal(found.data, data)
    io.write(Volume(data + 1e-4, np.eye(4)), path)
    np.testing.assert_array_equal(io.read_labels(path).data, data)
    for broken in (data + 0.4, data * np.nan, data * 1e12):
        io.write(Volume(broken, np.eye(4)), path)
        with pytest.raises(CorruptFile, match="label values") as raised:
            io.read_labels(path)
        assert raised.value.path == str(path)


def test_one_series_by_file_folder_list_and_zip(data, tmp_path):
    folder = data("ct_abdomen") / "example_ct_dicom"
    files = sorted(folder.iterdir())
    whole = io.read(folder)
    assert whole.modality == "CT"
    assert whole.unit == "HU"
    assert whole.shape == (512, 512, 20)
    for other in (io.read(files[::-1]), *io.read_all(folder)):
        np.testing.assert_array_equal(other.data, whole.data)
        assert same_grid(other.affine, other.shape, whole.affine, whole.shape)
    packed = shutil.make_archive(str(tmp_path / "exam"), "zip", folder)
    np.testing.assert_array_equal(io.read(packed).data, whole.data)
    assert io.read(files[0]).is_2d


def test_the_label_map_beside_a_series_lies_on_its_grid(data):
    from vesalius.geometry import reorient

    series = reorient(io.read(data("ct_abdomen") / "example_ct_dicom"))
    labels = reorient(io.read_labels(data("ct_abdomen") / "example_seg_dicom.nii.gz"))
    assert same_grid(series.affine, series.shape, labels.affine, labels.shape, tolerance_mm=0.05)


def test_several_images_are_listed_without_names(data):
    folder = data("dicom") / "transfer_syntaxes"
    with pytest.raises(UsageError, match=r"read_all") as raised:
        io.read(folder)
    message = str(raised.value).replace(str(folder), "")
    assert "CT image 512x512x1" in message
    assert "1.2." not in message


def test_objects_go_out_and_come_back(data, tmp_path):
    folder = data("ct_abdomen") / "example_ct_dicom"
    files = sorted(folder.iterdir())
    image = io.read(folder)
    drawn = np.zeros(image.data.shape, np.uint8)
    drawn[0, 200:240, 180:230, 3:9] = 1
    drawn[0, 300:330, 280:300, 5:12] = 2
    labels = LabelMap(drawn, image.affine, names={1: "liver", 2: "spleen"})
    for name in ("dicom-seg", "rtstruct"):
        path = io.write(labels, tmp_path / f"{name}.dcm", format=name, source_files=files)
        found = io.read(path, reference=image)
        assert isinstance(found, LabelMap)
        assert sorted(found.names.values()) == ["liver", "spleen"]
        np.testing.assert_array_equal(found.data.max(0), drawn[0])
        assert same_grid(found.affine, found.shape, image.affine, image.shape)
    with pytest.raises(UsageError, match="reference="):
        io.read(tmp_path / "rtstruct.dcm")


def test_documents_are_refused_by_kind(data):
    with pytest.raises(UnsupportedFormat, match="document") as raised:
        io.read(data("dicom") / "highdicom" / "test_files" / "sr_document.dcm")
    assert raised.value.evidence == {"kinds": ["document"]}
