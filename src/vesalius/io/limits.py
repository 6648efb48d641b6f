# SPDX-License-Identifier: Apache-2.0
"""Reading budgets: what a file may take in memory, checked before allocation and while inflating.

A file states its size on disk honestly and everything else at will. `Limits.allowed(size)` gives
the bytes that reading it may take at its peak (raw values plus converted values): by default
256 times its size on disk, but never less than 192 MiB, so that a 1 MB file stays below 300 MB
for the whole process and a real, highly compressible label map still opens. A user who trusts
the data raises the floor: `Limits(floor=4 << 30)`, on the command line `--max-image-memory 4GB`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

from vesalius.errors import CorruptFile, LimitExceeded
from vesalius.types import Array

_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Limits:
    """How much memory reading one file (or one series) may take, in bytes."""

    floor: int = 192 << 20
    ratio: int = 256
    max_elements: int = 200_000  # DICOM elements in one header, sequences included
    max_depth: int = 64  # nested DICOM sequences
    max_members: int = 200_000  # entries of one zip file

    def allowed(self, size_on_disk: int) -> int:
        """Return the peak bytes that reading a file of `size_on_disk` bytes may take."""
        return max(self.floor, self.ratio * size_on_disk)

    def check(self, wanted: int, size_on_disk: int, *, what: str, path: str = "") -> None:
        """Raise `LimitExceeded` when `wanted` bytes are more than the file may take."""
        allowed = self.allowed(size_on_disk)
        if wanted > allowed:
            raise LimitExceeded(
                f"{what} would take {_mib(wanted)} MiB, allowed are {_mib(allowed)} MiB for a "
                f"file of {_mib(size_on_disk)} MiB; if you trust it, raise the limit "
                "(--max-image-memory, or Limits(floor=…))",
                path=path,
                wanted=int(wanted),
                allowed=allowed,
            )


DEFAULT_LIMITS = Limits()


def inflate(
    stream: IO[bytes], *, wbits: int, cap: int, path: str = "", what: str = "the stream"
) -> Iterator[bytes]:
    """Inflate `stream` piece by piece; raise `LimitExceeded` once more than `cap` bytes came out.

    `wbits` is zlib's: 31 for gzip (members may be concatenated), -15 for raw deflate, 15 for
    zlib. At no moment is more than one piece of 256 KiB held. Truncated or damaged input raises
    `CorruptFile`.
    """
    produced = 0
    engine = zlib.decompressobj(wbits)
    pending = b""
    while True:
        if not pending:
            pending = stream.read(_CHUNK)
            if not pending:
                break
        if engine.eof:  # a further gzip member, or padding
            if wbits != 31 or not pending.strip(b"\0"):
                return
            engine = zlib.decompressobj(wbits)
        try:
            piece = engine.decompress(pending, _CHUNK)
        except zlib.error as error:
            raise CorruptFile(f"{what} is damaged: {error}", path=path) from error
        pending = engine.unconsumed_tail or engine.unused_data
        produced += len(piece)
        if produced > cap:
            raise LimitExceeded(
                f"{what} inflates to more than the {_mib(cap)} MiB allowed; if you trust it, "
                "raise the limit (--max-image-memory, or Limits(floor=…))",
                path=path,
                allowed=cap,
            )
        if piece:
            yield piece
    if not engine.eof:
        raise CorruptFile(f"{what} ends before its compressed data do", path=path, got=produced)


def fill(pieces: Iterator[bytes], out: Array, *, skip: int = 0, path: str = "") -> int:
    """Copy a stream of pieces, its first `skip` bytes left out, into the contiguous array `out`.

    Raises `CorruptFile` when the stream ends early. Returns the bytes of the stream left unread
    in the last piece taken.
    """
    target = out.reshape(-1).view(np.uint8)
    done = 0
    for piece in pieces:
        if skip:
            cut = min(skip, len(piece))
            piece, skip = piece[cut:], skip - cut
        take = min(len(piece), len(target) - done)
        target[done : done + take] = np.frombuffer(piece, np.uint8, take)
        done += take
        if done == len(target):
            return len(piece) - take
    raise CorruptFile(
        f"voxel data end after {done:,} of {len(target):,} bytes",
        path=path,
        got=done,
        expected=len(target),
    )


def _mib(count: int) -> str:
    return f"{count / (1 << 20):,.1f}"
