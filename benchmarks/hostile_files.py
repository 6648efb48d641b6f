# SPDX-License-Identifier: Apache-2.0
"""Files of at most 1 MB that ask for far more than they are; harmless when read well."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    generate_uid,
)

MIB = 1 << 20


def ct_dataset(
    *, rows: int = 64, columns: int = 64, syntax: UID = ExplicitVRLittleEndian
) -> Dataset:
    """Return a small, valid CT instance to be spoiled."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.FrameOfReferenceUID = generate_uid()
    ds.PatientID, ds.PatientName, ds.Modality = "H1", "Hostile^One", "CT"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness, ds.InstanceNumber = [1, 1], 1, 1
    ds.Rows, ds.Columns, ds.SamplesPerPixel = rows, columns, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept = 1, 0
    return ds


def _save(ds: Dataset, path: Path) -> None:
    with pydicom.config.disable_value_validation():
        ds.save_as(path, enforce_file_format=True)


def _pixels(rng: np.random.Generator) -> bytes:
    return rng.integers(-1000, 1000, (64, 64), dtype=np.int16).tobytes()


def good(path: Path) -> None:
    """Write the harmless file whose scan is the idle reference."""
    ds = ct_dataset()
    ds.PixelData = _pixels(np.random.default_rng(0))
    _save(ds, path)


def deflate_bomb(path: Path) -> None:
    """1 MB of deflate that inflates to the 1 GB of pixels that the header announces."""
    _deflated(path, b"\xe0\x7f\x10\x00OW\0\0", rows=22000, columns=22000)


def deflate_bomb_in_header(path: Path) -> None:
    """1 MB of deflate with a 1 GB private element in front of the pixels."""
    _deflated(path, b"\x09\x00\x10\x10OB\0\0", rows=64, columns=64)


def _deflated(path: Path, element: bytes, *, rows: int, columns: int) -> None:
    ds = ct_dataset(rows=rows, columns=columns, syntax=DeflatedExplicitVRLittleEndian)
    ds.PixelData = b""
    buffer = io.BytesIO()
    _save(ds, buffer)  # type: ignore[arg-type]
    head = buffer.getvalue()
    meta_end = 132 + 12 + struct.unpack_from("<I", head, 140)[0]
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    size = 1000 * MIB
    body = zlib.decompress(head[meta_end:], -15)
    body = body[: body.rindex(b"\xe0\x7f\x10\x00")]
    out = [engine.compress(body + element + struct.pack("<I", size))]
    out += [engine.compress(bytes(MIB)) for _ in range(1000)]
    path.write_bytes(head[:meta_end] + b"".join(out) + engine.flush())


def _gzip_zeros(head: bytes, megabytes: int) -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9) as stream:
        stream.write(head)
        for _ in range(megabytes):
            stream.write(bytes(MIB))
    return buffer.getvalue()


def _nifti_header(shape: tuple[int, ...], datatype: int = 16, bits: int = 32) -> bytes:
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into(f"<{len(shape) + 1}h", head, 40, len(shape), *shape)
    struct.pack_into("<hh", head, 70, datatype, bits)
    struct.pack_into("<8f", head, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<f", head, 108, 352.0)
    head[344:348] = b"n+1\0"
    return bytes(head)


def gzip_bomb(path: Path) -> None:
    """A .nii.gz of 1 MB with 1 GB of zeros behind an honest header."""
    path.write_bytes(_gzip_zeros(_nifti_header((1024, 512, 512)), 1000))


def nifti_claim(path: Path) -> None:
    """A .nii.gz of some 60 bytes that claims 32767 x 32767 x 3 floats."""
    path.write_bytes(gzip.compress(_nifti_header((32767, 32767, 3))))


def minc_bomb(path: Path) -> None:
    """A .mnc.gz that inflates to 1 GB."""
    path.write_bytes(_gzip_zeros(b"CDF\x01" + bytes(64), 1000))


def mgh_bomb(path: Path) -> None:
    """An .mgz that inflates to 1 GB."""
    head = struct.pack(">7i", 1, 1024, 512, 512, 1, 3, 0) + bytes(256)
    path.write_bytes(_gzip_zeros(head, 1000))


def nrrd_bomb(path: Path) -> None:
    """A gzip-encoded NRRD whose data inflate to 1 GB."""
    head = (
        b"NRRD0004\ntype: float\ndimension: 3\nspace: left-posterior-superior\n"
        b"sizes: 1024 512 512\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"
        b"kinds: domain domain domain\nendian: little\nencoding: gzip\n"
        b"space origin: (0,0,0)\n\n"
    )
    path.write_bytes(head + _gzip_zeros(b"", 1000))


def metaimage_bomb(path: Path) -> None:
    """A compressed MetaImage whose data inflate to 1 GB."""
    body = zlib.compress(bytes(64 * MIB), 9)
    head = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        "CompressedData = True\nDimSize = 1024 512 512\nElementType = MET_FLOAT\n"
        "ElementSpacing = 1 1 1\nOffset = 0 0 0\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(head.encode() + body)


def zip_bomb(path: Path) -> None:
    """A zip whose one DICOM member inflates to 1 GB."""
    ds = ct_dataset()
    buffer = io.BytesIO()
    ds.PixelData = b""
    _save(ds, buffer)  # type: ignore[arg-type]
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("image.dcm", "w") as member,
    ):
        member.write(buffer.getvalue())
        for _ in range(1000):
            member.write(bytes(MIB))


def zip_symlink(path: Path) -> None:
    """A zip with a symbolic link, an absolute name and a name that climbs out."""
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("link.dcm")
        link.create_system = 3
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("../../escape.dcm", b"x")
        archive.writestr("/absolute.dcm", b"x")


def npz_bomb(path: Path) -> None:
    """An NPZ in MedMNIST form whose images inflate to 1 GB."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|u1", "fortran_order": False, "shape": (1000, 1024, 1024)}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("train_images.npy", "w") as member,
    ):
        member.write(buffer.getvalue())
        for _ in range(1000):
            member.write(bytes(MIB))


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bomb(path: Path) -> None:
    """A PNG of 32000 x 32000 in 1 MB."""
    engine = zlib.compressobj(9)
    body = b"".join(engine.compress(bytes(32001)) for _ in range(32000)) + engine.flush()
    head = _png_chunk(b"IHDR", struct.pack(">IIBBBBB", 32000, 32000, 8, 0, 0, 0, 0))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + head + _png_chunk(b"IDAT", body) + _png_chunk(b"IEND", b"")
    )


def tiff_bomb(path: Path) -> None:
    """A deflated TIFF of 32000 x 32000 in 1 MB."""
    engine = zlib.compressobj(9)
    body = b"".join(engine.compress(bytes(32000)) for _ in range(32000)) + engine.flush()
    tags = [
        (256, 4, 1, 32000), (257, 4, 1, 32000), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1),
        (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 32000), (279, 4, 1, len(body)),
    ]  # fmt: skip
    directory = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, kind, count, value) for tag, kind, count, value in tags
    )
    offset = 8 + len(body)
    path.write_bytes(b"II*\0" + struct.pack("<I", offset) + body + directory + bytes(4))


def huge_matrix(path: Path) -> None:
    """Rows x Columns of 2^31, native."""
    ds = ct_dataset(rows=65535, columns=32768)
    ds.PixelData = bytes(1000)
    _save(ds, path)


def huge_matrix_rle(path: Path) -> None:
    """Rows x Columns of 2^32 behind a tiny RLE fragment."""
    ds = ct_dataset(rows=65535, columns=65535, syntax=RLELossless)
    ds.PixelData = encapsulate([struct.pack("<16I", 2, 64, 100, *[0] * 13) + bytes(100)])
    ds["PixelData"].is_undefined_length = True
    _save(ds, path)


def huge_matrix_j2k(path: Path) -> None:
    """A JPEG 2000 header that states 60000 x 60000."""
    ds = ct_dataset(rows=60000, columns=60000, syntax=JPEG2000Lossless)
    size = struct.pack(
        ">HHIIIIIIIIHBBB", 0, 41, 60000, 60000, 0, 0, 60000, 60000, 0, 0, 1, 15, 1, 1
    )
    stream = b"\xff\x4f\xff\x51" + struct.pack(">H", len(size)) + size[2:] + b"\xff\xd9"
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].is_undefined_length = True
    _save(ds, path)


def million_frames(path: Path) -> None:
    """10^6 RLE frames announced, one present."""
    ds = ct_dataset(syntax=RLELossless)
    ds.NumberOfFrames = 1_000_000
    ds.PixelData = encapsulate([struct.pack("<16I", 2, 64, 100, *[0] * 13) + bytes(100)])
    ds["PixelData"].is_undefined_length = True
    _save(ds, path)


def deep_sequence(path: Path) -> None:
    """A sequence 10,000 items deep, undefined lengths all the way."""
    ds = ct_dataset()
    ds.PixelData = _pixels(np.random.default_rng(1))
    buffer = io.BytesIO()
    _save(ds, buffer)  # type: ignore[arg-type]
    raw = buffer.getvalue()
    opening = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closing = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    first = raw.index(b"\x08\x00\x60\x00CS")  # Modality, the first tag above (0008,1140)'s group
    position = first + 8 + struct.unpack_from("<H", raw, first + 6)[0]
    path.write_bytes(raw[:position] + opening * 10_000 + closing * 10_000 + raw[position:])


def traversal_uid(path: Path) -> None:
    """Instance and series UIDs that try to climb out of a folder."""
    ds = ct_dataset()
    ds.PixelData = _pixels(np.random.default_rng(2))
    buffer = io.BytesIO()
    _save(ds, buffer)  # type: ignore[arg-type]
    raw = buffer.getvalue()
    for uid in (ds.SOPInstanceUID, ds.SeriesInstanceUID):
        evil = (b"../" * 30)[: len(uid)]
        raw = raw.replace(str(uid).encode(), evil)
    path.write_bytes(raw)


def unending_sequence(path: Path) -> None:
    """An undefined-length sequence that never ends."""
    ds = ct_dataset()
    ds.PixelData = _pixels(np.random.default_rng(3))
    buffer = io.BytesIO()
    _save(ds, buffer)  # type: ignore[arg-type]
    raw = buffer.getvalue()
    first = raw.index(b"\x08\x00\x60\x00CS")
    position = first + 8 + struct.unpack_from("<H", raw, first + 6)[0]
    path.write_bytes(raw[:position] + b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + bytes(4000))


def bits_overflow(path: Path) -> None:
    """BitsStored larger than BitsAllocated."""
    ds = ct_dataset()
    ds.BitsStored, ds.HighBit = 40, 39
    ds.PixelData = _pixels(np.random.default_rng(4))
    _save(ds, path)


def truncated(path: Path) -> None:
    """Half of the pixel data missing."""
    good(path)
    path.write_bytes(path.read_bytes()[:-4000])


FILES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "deflate bomb": ("deflate.dcm", deflate_bomb),
    "deflate bomb in the header": ("header.dcm", deflate_bomb_in_header),
    "gzip bomb (NIfTI)": ("bomb.nii.gz", gzip_bomb),
    "gzip bomb (MINC)": ("bomb.mnc.gz", minc_bomb),
    "gzip bomb (MGH)": ("bomb.mgz", mgh_bomb),
    "gzip bomb (NRRD)": ("bomb.nrrd", nrrd_bomb),
    "zlib bomb (MetaImage)": ("bomb.mha", metaimage_bomb),
    "zip bomb": ("bomb.zip", zip_bomb),
    "NPZ bomb": ("bomb.npz", npz_bomb),
    "PNG bomb": ("bomb.png", png_bomb),
    "TIFF bomb": ("bomb.tif", tiff_bomb),
    "NIfTI header claims 12.9 GB": ("claim.nii.gz", nifti_claim),
    "Rows x Columns 2^31, native": ("matrix.dcm", huge_matrix),
    "Rows x Columns 2^32, RLE": ("matrix_rle.dcm", huge_matrix_rle),
    "60000 x 60000, JPEG 2000": ("matrix_j2k.dcm", huge_matrix_j2k),
    "10^6 frames": ("frames.dcm", million_frames),
    "10,000-deep sequence": ("deep.dcm", deep_sequence),
    "UID ../": ("uid.dcm", traversal_uid),
    "symlink and climbing names in zip": ("links.zip", zip_symlink),
    "unending sequence": ("unending.dcm", unending_sequence),
    "BitsStored 40 of 16": ("bits.dcm", bits_overflow),
    "truncated pixel data": ("truncated.dcm", truncated),
}
