# SPDX-License-Identifier: Apache-2.0
"""Zip archives, streamed under a cap: members of an NPZ, and zips of DICOM files.

A member's name is never used as a path. What is refused, with the reason in the error: encrypted
members, symbolic links and other special files, absolute or climbing names, archives inside
archives, compression other than deflate, and more members than `Limits.max_members`.
"""

from __future__ import annotations

import os
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from vesalius.errors import CorruptFile, LimitExceeded, ReadError, UnsupportedFormat
from vesalius.io.limits import Limits
from vesalius.types import PathLike

_PIECE = 1 << 18
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError)


@contextmanager
def opened(path: PathLike, limits: Limits) -> Iterator[zipfile.ZipFile]:
    """Open an archive whose entries are all safe to stream."""
    name = os.fspath(path)
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise CorruptFile(f"the zip archive is damaged: {error}", path=name) from error
    with archive:
        entries = archive.infolist()
        if len(entries) > limits.max_members:
            raise LimitExceeded(
                f"the archive lists {len(entries):,} members, allowed are {limits.max_members:,}",
                path=name,
                wanted=len(entries),
                allowed=limits.max_members,
            )
        for number, entry in enumerate(entries):
            reason = _unsafe(entry)
            if reason:
                raise UnsupportedFormat(
                    f"member {number} of the archive is {reason}, which is refused; repack plain "
                    "files with deflate",
                    path=name,
                    member=number,
                    unsafe=reason,
                )
        yield archive


@contextmanager
def member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, *, path: str) -> Iterator[IO[bytes]]:
    """Open one member as a stream that inflates no more than it is asked for."""
    try:
        stream = archive.open(entry)
    except (*_DAMAGE, RuntimeError) as error:
        raise CorruptFile(f"a member of the archive is damaged: {error}", path=path) from error
    with stream:
        yield stream


def take(stream: IO[bytes], count: int, *, path: str) -> bytes:
    """Read up to `count` bytes of a member; damage raises `CorruptFile`."""
    try:
        return stream.read(count)
    except _DAMAGE as error:
        raise CorruptFile(f"a member of the archive is damaged: {error}", path=path) from error


@contextmanager
def dicom_files(path: PathLike, *, limits: Limits) -> Iterator[list[Path]]:
    """Unpack the DICOM members into a private temporary folder and yield their paths.

    Members that are not DICOM (a DICOMDIR, notes, desktop litter) are left out; an archive
    without any DICOM member raises `UnsupportedFormat`. All members together may take
    `limits.allowed(size of the archive)` bytes. The folder is gone on leaving the context, and a
    `ReadError` raised inside it about an unpacked file names the archive and the member's number.
    """
    from vesalius.io.formats import is_dicom

    name = os.fspath(path)
    left = limits.allowed(os.stat(path).st_size)
    allowed = left
    with (
        opened(path, limits) as archive,
        tempfile.TemporaryDirectory(prefix="vesalius-zip-") as folder,
    ):
        files = []
        for number, entry in enumerate(archive.infolist()):
            if entry.is_dir():
                continue
            with member(archive, entry, path=name) as stream:
                piece = take(stream, _PIECE, path=name)
                if piece[:4] == b"PK\x03\x04":
                    raise UnsupportedFormat(
                        f"member {number} of the archive is an archive itself, which is refused; "
                        "unpack it first",
                        path=name,
                        member=number,
                        unsafe="nested archive",
                    )
                if not is_dicom(piece):
                    continue
                target = Path(folder, f"{number:08d}.dcm")
                with open(target, "wb") as out:
                    while piece:
                        left -= len(piece)
                        if left < 0:
                            raise LimitExceeded(
                                f"the archive unpacks to more than the {allowed >> 20} MiB "
                                "allowed; if you trust it, raise the limit (--max-image-memory, or "
                                "Limits(floor=…))",
                                path=name,
                                allowed=allowed,
                            )
                        out.write(piece)
                        piece = take(stream, _PIECE, path=name)
                files.append(target)
        if not files:
            raise UnsupportedFormat(
                "the zip archive holds no DICOM file; zips of other formats are not read: unpack "
                "them",
                path=name,
            )
        try:
            yield files
        except ReadError as error:
            if not error.path.startswith(folder):
                raise
            member_number = int(Path(error.path).stem)
            raise type(error)(
                f"member {member_number}: {error.reason}",
                path=name,
                **error.evidence | {"member": member_number},
            ) from error


def _unsafe(entry: zipfile.ZipInfo) -> str:
    """Return why an entry is refused, or ``."""
    mode = entry.external_attr >> 16
    kind = stat.S_IFMT(mode) if entry.create_system == 3 else 0
    parts = entry.filename.replace("\\", "/").split("/")
    if entry.flag_bits & 0x1:
        return "encrypted"
    if kind and kind not in (stat.S_IFREG, stat.S_IFDIR):
        return "a link or special file"
    if entry.filename.startswith(("/", "\\")) or parts[0].endswith(":"):
        return "named by an absolute path"
    if ".." in parts:
        return "named by a path that climbs out of the archive"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"compressed by method {entry.compress_type}"
    if entry.filename.lower().endswith((".zip", ".7z", ".rar", ".tar", ".tgz", ".tar.gz")):
        return "an archive itself"
    return ""
