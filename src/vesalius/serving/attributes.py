# SPDX-License-Identifier: Apache-2.0
"""What the index holds of one DICOM file, read by the bounded walker and checked."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from vesalius.errors import CorruptFile, UnsupportedFormat
from vesalius.io.dicom import values as v
from vesalius.io.dicom.dataset import open_data_set, open_file
from vesalius.io.dicom.elements import Tables
from vesalius.io.limits import Limits
from vesalius.serving.uids import is_uid
from vesalius.types import PathLike

# A network's peer is trusted with less than a person at the machine.
LIMITS = Limits(floor=64 << 20, ratio=64, max_elements=100_000, max_depth=32)
_TEXT = 128  # characters of a text that the index keeps
_TAGS = {
    "character_set": 0x00080005, "sop_class": 0x00080016, "sop_uid": 0x00080018,
    "study_date": 0x00080020, "study_time": 0x00080030, "accession": 0x00080050,
    "modality": 0x00080060, "referring": 0x00080090, "study_description": 0x00081030,
    "series_description": 0x0008103E, "patient_name": 0x00100010, "patient_id": 0x00100020,
    "birth_date": 0x00100030, "sex": 0x00100040, "body_part": 0x00180015,
    "study_uid": 0x0020000D, "series_uid": 0x0020000E, "study_id": 0x00200010,
    "series_number": 0x00200011, "number": 0x00200013, "frames": 0x00280008,
    "rows": 0x00280010, "columns": 0x00280011,
}  # fmt: skip
_TABLES = Tables({tag: name for name, tag in _TAGS.items()})
_UIDS = ("sop_class", "sop_uid", "series_uid", "study_uid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What is indexed of one instance. All but numbers and codes is patient data."""

    sop_class: str
    sop_uid: str
    series_uid: str
    study_uid: str
    transfer_syntax: str = ""
    modality: str = ""
    body_part: str = ""
    study_date: str = ""
    study_time: str = ""
    study_id: str = ""
    accession: str = ""
    referring: str = field(default="", repr=False)
    patient_name: str = field(default="", repr=False)
    patient_id: str = field(default="", repr=False)
    birth_date: str = field(default="", repr=False)
    sex: str = ""
    study_description: str = ""
    series_description: str = ""
    series_number: int | None = None
    number: int | None = None
    frames: int | None = None
    rows: int | None = None
    columns: int | None = None


_NUMBERS = {"series_number", "number", "frames", "rows", "columns"}
_NAMES = {one.name for one in fields(Attributes)}


def read_attributes(path: PathLike) -> Attributes:
    """Read what the index holds of a DICOM file; pixel data are not read.

    Raises:
        UnsupportedFormat: no DICOM file, or an instance without the UIDs that name it.
        CorruptFile: an element breaks its encoding.
        LimitExceeded: too many elements, too deep, or inflated to too much.
    """
    name = "the instance"
    with open_file(path) as (handle, size):
        data_set = open_data_set(
            lambda offset, count: os.pread(handle, count, offset), size, limits=LIMITS, path=name
        )
        found, _ = data_set.collect(_TABLES, LIMITS, name)
    readers = _readers(data_set.order.big)
    character_set = found.pop("character_set", b"")
    held: dict[str, Any] = {}
    for key, raw in found.items():
        held[key] = _value(readers.get(key), raw, character_set)
    for key in _UIDS:
        if not is_uid(held.get(key) or ""):
            raise UnsupportedFormat(
                f"the instance has no valid {key.replace('_', ' ')}: digits and dots, at most 64",
                path=name,
            )
    kept = {key: value for key, value in held.items() if key in _NAMES and value is not None}
    return Attributes(**kept, transfer_syntax=data_set.transfer_syntax)


def _value(reader: Callable[[bytes], Any] | None, raw: Any, character_set: bytes) -> Any:
    """Return a value, or None where it is empty or breaks its VR: of the index, not of the file."""
    if not isinstance(raw, bytes):
        return None
    try:
        if reader is not None:
            return reader(raw)
        return (v.text(raw, character_set) or "")[:_TEXT].replace("\0", "")
    except (ValueError, OverflowError):
        return None


def _readers(big: bool) -> dict[str, Callable[[bytes], Any]]:
    short = v.binary("H", big=big)
    readers: dict[str, Callable[[bytes], Any]] = dict.fromkeys(_UIDS, _uid)
    readers |= {"rows": short, "columns": short}
    readers |= dict.fromkeys(("series_number", "number", "frames"), _integer)
    return readers


def _uid(raw: bytes) -> str | None:
    try:
        return v.uid(raw)
    except CorruptFile:
        return None  # said by the caller, of all four alike


def _integer(raw: bytes) -> int | None:
    value = v.integer(raw)
    return value if value is None or abs(value) < 1 << 31 else None
