# SPDX-License-Identifier: Apache-2.0
"""MGH/MGZ and Analyze against nibabel."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from vesalius import io
from vesalius.errors import CorruptFile, GeometryError

AFFINE = np.array([[-2.0, 0.1, 0, 40], [0.1, 2, 0.2, -30], [0, -0.2, 3, 5], [0, 0, 0, 1]])


def compare(path):
    ours = io.read(path)
    # From bytes, because nibabel leaves uncompressed MGH files open.
    other = (
        nibabel.MGHImage.from_bytes(path.read_bytes())
        if path.suffix == ".mgh"
        else nibabel.load(path)
    )
    values = other.get_fdata()
    values = np.moveaxis(values, 3, 0) if values.ndim == 4 else values[None]
    np.testing.assert_allclose(ours.data, values, rtol=1e-6)
    np.testing.assert_allclose(ours.affine, other.affine, atol=1e-4)
    return ours


@pytest.mark.parametrize("suffix", [".mgh", ".mgz"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4"])
@pytest.mark.parametrize("frames", [1, 3])
def test_mgh(tmp_path, rng, suffix, dtype, frames):
    shape = (5, 4, 3) if frames == 1 else (5, 4, 3, frames)
    array = rng.integers(0, 100, shape).astype(dtype)
    nibabel.save(nibabel.MGHImage(array, AFFINE), tmp_path / f"a{suffix}")
    ours = compare(tmp_path / f"a{suffix}")
    assert ours.data.dtype == np.dtype(dtype)
    assert ours.calibrated


def test_mgh_without_orientation_has_the_default_one(tmp_path):
    path = tmp_path / "a.mgh"
    nibabel.save(nibabel.MGHImage(np.zeros((4, 6, 8), np.uint8), AFFINE), path)
    content = bytearray(path.read_bytes())
    content[28:30] = bytes(2)
    path.write_bytes(content)
    assert not compare(path).calibrated


def test_damaged_mgh(tmp_path):
    path = tmp_path / "a.mgh"
    nibabel.save(nibabel.MGHImage(np.zeros((4, 6, 8), np.float32), AFFINE), path)
    whole = path.read_bytes()
    for content in (whole[:60], whole[:900], whole[:4] + bytes(4) + whole[8:]):
        path.write_bytes(content)
        with pytest.raises(CorruptFile) as raised:
            io.read(path)
        assert raised.value.path == str(path)


@pytest.mark.parametrize("kind", ["AnalyzeImage", "Spm99AnalyzeImage", "Spm2AnalyzeImage"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8"])
def test_analyze(tmp_path, rng, kind, dtype):
    array = rng.integers(0, 100, (5, 4, 3)).astype(dtype)
    image = getattr(nibabel, kind)(array, None)
    image.header.set_zooms((2, 3, 4))
    if "origin" in image.header.keys():  # noqa: SIM118  a nibabel header is no mapping
        image.header["origin"][:3] = 2, 3, 1
    nibabel.save(image, tmp_path / "a.hdr")
    (tmp_path / "a.mat").unlink(missing_ok=True)
    ours = compare(tmp_path / "a.hdr")
    assert ours.source.format == "analyze"
    np.testing.assert_array_equal(io.read(tmp_path / "a.img").data, ours.data)


def test_spm_scale_factor(tmp_path):
    array = np.linspace(0, 3.3, 60).reshape(5, 4, 3)
    image = nibabel.Spm99AnalyzeImage(array, None)
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.img")
    (tmp_path / "a.mat").unlink(missing_ok=True)
    assert compare(tmp_path / "a.img").data.dtype == np.float32


def test_analyze_with_a_mat_file_is_refused(tmp_path):
    nibabel.save(
        nibabel.Spm99AnalyzeImage(np.zeros((3, 3, 3), np.int16), AFFINE), tmp_path / "a.img"
    )
    assert (tmp_path / "a.mat").is_file()
    with pytest.raises(GeometryError, match=r"\.mat"):
        io.read(tmp_path / "a.img")


def test_real_mgz_equals_nibabel(data):
    compare(data("formats") / "mgh.mgz")
