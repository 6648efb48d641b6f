# SPDX-License-Identifier: Apache-2.0
"""Law 9: hostile files of at most 1 MB raise a typed error within 300 MB above an idle process."""

from __future__ import annotations

import gzip
import io
import struct
import subprocess
import sys
import zipfile
import zlib
from functools import cache

import nibabel
import numpy as np
import pytest

_CHILD = """
import resource, sys
import numpy, vesalius.io
from vesalius.errors import ReadError
idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    vesalius.io.read(sys.argv[1], member=sys.argv[2])
    name = "none"
except ReadError as error:
    assert error.path and error.finding
    name = type(error).__name__
print(name, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) * 1024 / 1e6)
"""
_LIMIT_MB = 300


@cache
def deflated_zeros(mib: int, wbits: int = 15) -> bytes:
    engine = zlib.compressobj(9, zlib.DEFLATED, wbits)
    parts = [engine.compress(bytes(1 << 20)) for _ in range(mib)]
    return b"".join(parts) + engine.flush()


def zeros_gz(head: bytes, mib: int) -> bytes:
    """Return gzip of `head` and then of zeros, as two members of one file."""
    return gzip.compress(head) + deflated_zeros(mib, 31)


def nifti_header(shape: tuple[int, ...]) -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape(shape)
    header["magic"], header["vox_offset"] = header.single_magic, 352
    return header.binaryblock + bytes(4)


def png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff(width: int, height: int, data: bytes, compression: int = 8) -> bytes:
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, compression), (262, 3, 1),
        (273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, len(data)),
    ]  # fmt: skip
    ifd = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags
    )
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + ifd + bytes(4)


def npz(shape: tuple[int, ...]) -> bytes:
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head = b"\x93NUMPY\1\0" + struct.pack("<H", len(head) + 1) + head + b"\n"
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("train_images.npy", "w", force_zip64=True) as stream,
    ):
        stream.write(head)
        for _ in range(500):
            stream.write(bytes(1 << 20))
    return out.getvalue()


def dicom_zip() -> bytes:
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("a.dcm", "w", force_zip64=True) as stream,
    ):
        stream.write(bytes(128) + b"DICM")
        for _ in range(500):
            stream.write(bytes(1 << 20))
    return out.getvalue()


def minc2() -> bytes:
    """A chunk that claims 64³ voxels and inflates to 900 MB."""
    import h5py

    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        group = file.create_group("minc-2.0/image/0")
        image = group.create_dataset(
            "image", (64, 64, 64), np.int16, chunks=(64, 64, 64), compression="gzip"
        )
        image.id.write_direct_chunk((0, 0, 0), deflated_zeros(900))
        image.attrs["dimorder"] = np.bytes_(b"zspace,yspace,xspace")
        group.create_dataset("image-min", data=0.0)
        group.create_dataset("image-max", data=1.0)
        for one in ("xspace", "yspace", "zspace"):
            file.create_dataset(f"minc-2.0/dimensions/{one}", data=0)
    return out.getvalue()


def minc2_huge() -> bytes:
    import h5py

    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        group = file.create_group("minc-2.0/image/0")
        image = group.create_dataset(
            "image", (60000, 60000, 60000), np.int16, chunks=(64, 64, 64), compression="gzip"
        )
        image.attrs["dimorder"] = np.bytes_(b"zspace,yspace,xspace")
    return out.getvalue()


def minc1_many() -> bytes:
    return b"CDF\1" + struct.pack(">III", 0, 10, 0xFFFFFFF0) + bytes(1000)


NRRD = b"NRRD0005\ntype: short\ndimension: 3\nsizes: %s\nencoding: gzip\nendian: little\n\n"
META = (
    b"ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = True\nDimSize = %s\n"
    b"ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
)
MGH = struct.pack(">7ih", 1, 30000, 30000, 30000, 1, 3, 0, 0) + bytes(254)

CASES = {
    "tiny.nii.gz": ("LimitExceeded", lambda: gzip.compress(nifti_header((32767, 32767, 3)))),
    "bomb.nii.gz": (
        "LimitExceeded",
        lambda: zeros_gz(nifti_header((640, 640, 600)), 900),
    ),
    "lie.nii.gz": ("CorruptFile", lambda: zeros_gz(nifti_header((300, 300, 300)), 1)),
    "bomb.mnc.gz": ("LimitExceeded", lambda: zeros_gz(b"CDF\1" + bytes(100), 900)),
    "hdf5.mnc.gz": ("LimitExceeded", lambda: zeros_gz(b"\x89HDF\r\n\x1a\n", 900)),
    "chunk.mnc": ("LimitExceeded", minc2),
    "huge.mnc": ("LimitExceeded", minc2_huge),
    "many.mnc": ("CorruptFile", minc1_many),
    "bomb.png": ("LimitExceeded", lambda: png(20000, 15000, deflated_zeros(860))),
    "huge.png": ("LimitExceeded", lambda: png(2**31 - 1, 2**31 - 1, deflated_zeros(1))),
    "lie.png": ("none", lambda: png(100, 100, deflated_zeros(860))),
    "bomb.tif": ("LimitExceeded", lambda: tiff(30000, 30000, deflated_zeros(860))),
    "lie.tif": ("none", lambda: tiff(100, 100, deflated_zeros(860))),
    "deep.tif": ("LimitExceeded", lambda: tiff(2**31, 2**31, deflated_zeros(1))),
    "bomb.zip": ("LimitExceeded", dicom_zip),
    "bomb.npz": ("LimitExceeded", lambda: npz((2, 15000, 17000))),
    "bomb.nrrd": (
        "LimitExceeded", lambda: NRRD % b"1000 1000 450" + zeros_gz(b"", 900),
    ),
    "overflow.nrrd": (
        "LimitExceeded", lambda: NRRD % b"4294967296 4294967296 2" + zeros_gz(b"", 1),
    ),
    "lie.nrrd": ("none", lambda: NRRD % b"10 10 10" + zeros_gz(b"", 900)),
    "bomb.mha": (
        "LimitExceeded", lambda: META % b"1000 1000 450" + deflated_zeros(900),
    ),
    "bomb.mgz": ("LimitExceeded", lambda: gzip.compress(MGH)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_hostile_files_stay_bounded(tmp_path, name):
    expected, make = CASES[name]
    path = tmp_path / name
    path.write_bytes(make())
    assert path.stat().st_size <= 1.05 * 2**20
    member = "train_images[1]" if name.endswith(".npz") else ""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(path), member],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    kind, peak = done.stdout.split()
    assert kind == expected
    assert float(peak) <= _LIMIT_MB, f"{peak} MB above idle"
