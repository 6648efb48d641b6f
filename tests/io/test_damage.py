# SPDX-License-Identifier: Apache-2.0
"""Damaged files of every format raise a typed error that names the file, or read: nothing else."""

from __future__ import annotations

import warnings
import zipfile

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from vesalius import io
from vesalius.errors import ReadError, UsageError
from vesalius.io.limits import Limits
from vesalius.volume import LabelMap, Volume

_LIMITS = Limits(floor=32 << 20, ratio=1)


def specimens(folder):
    """Write one small file of every format; return their paths."""
    random = np.random.default_rng(3)
    gray = random.integers(0, 200, (1, 9, 8, 7)).astype(np.int16)
    volume = Volume(gray, np.diag([-1.0, 2, 3, 1]))
    labels = LabelMap((gray % 3).astype(np.uint8), volume.affine, names={1: "liver", 2: "tumor"})
    paths = [
        io.write(volume, folder / name)
        for name in ("a.nii", "a.nii.gz", "a.nrrd", "a.mnc", "a.mha")
    ]
    paths += [io.write(labels, folder / name) for name in ("l.nii", "l.nrrd", "l.mnc")]
    nibabel.save(nibabel.MGHImage(gray[0], volume.affine), folder / "a.mgz")
    picture = Image.fromarray(random.integers(0, 255, (17, 19, 3)).astype(np.uint8))
    for name in ("a.png", "a.jpg", "a.bmp"):
        picture.save(folder / name)
    picture.save(folder / "a.tif", compression="tiff_lzw")
    tifffile.imwrite(folder / "b.tif", gray[0], photometric="minisblack")
    np.savez_compressed(folder / "a.npz", train_images=gray[0].astype(np.uint8))
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", bytes(128) + b"DICM" + random.bytes(300))
    paths += [folder / f"a.{s}" for s in ("mgz", "png", "jpg", "bmp", "tif", "npz", "zip")]
    return [*paths, folder / "b.tif"]


def damaged(whole: bytes, random: np.random.Generator) -> bytes:
    content = bytearray(whole)
    head = min(len(content), 600)  # headers are where damage does most
    for _ in range(int(random.integers(1, 8))):
        where = int(random.integers(0, head if random.random() < 0.7 else len(content)))
        content[where] = int(random.integers(0, 256)) if random.random() < 0.6 else 255
    if random.random() < 0.3:
        del content[int(random.integers(0, len(content))) :]
    return bytes(content)


NAMES = ["a.nii", "a.nii.gz", "a.nrrd", "a.mnc", "a.mha", "l.nii", "l.nrrd", "l.mnc", "a.mgz",
         "a.png", "a.jpg", "a.bmp", "a.tif", "a.npz", "a.zip", "b.tif"]  # fmt: skip


def outcome(path):
    """Return `read`, or the finding; anything but a typed error about this file comes through."""
    member = "train_images[1]" if path.suffix == ".npz" else ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            io.read_labels(path, member=member, limits=_LIMITS)
    except ReadError as error:
        return error.finding if error.path == str(path) else f"about {error.path}"
    except UsageError as error:  # the NPZ no longer holds the array asked for
        return "usage" if str(path) in str(error) and member else f"usage: {error}"
    return "read"


@pytest.mark.parametrize("name", NAMES)
def test_only_typed_errors_come_out(tmp_path, name):
    path = {p.name: p for p in specimens(tmp_path)}[name]
    whole = path.read_bytes()
    random = np.random.default_rng(11)
    outcomes = set()
    for _ in range(120):
        path.write_bytes(damaged(whole, random))
        outcomes.add(outcome(path))
    typed = {"corrupt-file", "unsupported-format", "limit-exceeded", "irregular-geometry", "usage"}
    assert outcomes <= typed | {"read"}
    assert outcomes & typed
