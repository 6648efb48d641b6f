# SPDX-License-Identifier: Apache-2.0
"""An instance's attributes as DICOM JSON (PS3.18 annex F), made once and kept in the index.

Pixel data and binary values above 1 kB are left out; they come with the instance itself. Only the
bytes before the pixel data are read, and no more of them than the walker allows.
"""

from __future__ import annotations

import io
import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom.filereader import read_dataset  # here, since threads must not be first to import it

from vesalius.errors import LimitExceeded
from vesalius.io.dicom.dataset import open_data_set, open_file
from vesalius.io.dicom.elements import Tables
from vesalius.serving.attributes import LIMITS
from vesalius.serving.state import State
from vesalius.serving.store import path_of

if TYPE_CHECKING:
    from pydicom import Dataset

_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_LARGEST_VALUE = 1024
_LARGEST_HEADER = 64 << 20
_NOTHING = Tables({})


def series_metadata(state: State, study_uid: str, series_uid: str = "") -> bytes:
    """Return the DICOM JSON of all instances of a series, or a study, in their order."""
    rows = state.connection().execute(
        "SELECT i.sha256, i.folder, m.json FROM instances i LEFT JOIN metadata m USING (sha256) "
        "WHERE i.study_uid = ? AND (? = '' OR i.series_uid = ?) AND NOT i.superseded "
        "AND i.sop_class != '' "
        "ORDER BY i.series_uid, i.number, i.sop_uid",
        (study_uid, series_uid, series_uid),
    ).fetchall()  # fmt: skip
    return _joined(state, rows)


def instance_metadata(state: State, sop_uid: str) -> bytes:
    """Return the DICOM JSON of one instance, as a list."""
    rows = state.connection().execute(
        "SELECT i.sha256, i.folder, m.json FROM instances i LEFT JOIN metadata m USING (sha256) "
        "WHERE i.sop_uid = ? AND NOT i.superseded AND i.sop_class != ''",
        (sop_uid,),
    ).fetchall()  # fmt: skip
    return _joined(state, rows)


def prepare(state: State, study_uid: str) -> None:
    """Make what is not made yet, so that the first who asks need not wait."""
    series_metadata(state, study_uid)


def dicom_json(path: Path) -> bytes:
    """Return one file's attributes as DICOM JSON."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that break their VR are left out
        data_set = _header(path)
        _drop_large(data_set)
        text = json.dumps(data_set.to_json_dict(suppress_invalid_tags=True), separators=(",", ":"))
    return text.encode()


def _joined(state: State, rows: list[tuple[str, str, bytes | None]]) -> bytes:
    made: list[tuple[str, bytes]] = []
    parts = []
    for sha256, folder, held in rows:
        if held is None:
            held = dicom_json(path_of(state, folder, sha256))
            made.append((sha256, held))
        parts.append(held)
    if made:
        with state.transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO metadata VALUES (?, ?)", made)
    return b"[" + b",".join(parts) + b"]"


def _header(path: Path) -> Dataset:
    """Read all elements before the pixel data."""
    with open_file(path) as (handle, size):

        def take(offset: int, count: int) -> bytes:
            return os.pread(handle, count, offset)

        walked = open_data_set(take, size, limits=LIMITS, path="")
        _, pixels = walked.collect(_NOTHING, LIMITS, "")
        # Walked once forward to find the end of the header; deflated data need a second stream.
        fresh = open_data_set(take, size, limits=LIMITS, path="")
        end = pixels.offset if pixels else size if fresh.size >= 0 else _LARGEST_HEADER
        if end - fresh.start > _LARGEST_HEADER:
            raise LimitExceeded("the header is too large", path="")
        raw = fresh.take(fresh.start, end - fresh.start)
    if pixels:
        raw = raw[: -12 if fresh.order.explicit else -8]  # tag, VR and length of the pixel data
    return read_dataset(io.BytesIO(raw), not fresh.order.explicit, not fresh.order.big)


def _drop_large(data_set: Dataset) -> None:
    """Leave out large binary values, and elements whose value cannot be read at all."""
    waiting = [data_set]
    while waiting:
        one = waiting.pop()
        for tag in list(one.keys()):
            try:
                element = one[tag]
            except (ValueError, KeyError, TypeError, NotImplementedError, OverflowError):
                del one[tag]
                continue
            if element.VR == "SQ":
                waiting += list(element.value or [])
            elif element.VR in _BINARY and len(element.value or b"") > _LARGEST_VALUE:
                del one[tag]
