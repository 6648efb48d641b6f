# SPDX-License-Identifier: Apache-2.0
"""The header of one DICOM file: what placing, grouping and decoding it takes, and no pixel data.

`read_header` walks the file once, forward, bounded by `Limits`, and keeps the attributes below.
Names and values after PS3.3 (information objects) and PS3.6 (dictionary); positions are in DICOM's
own frame, LPS+ millimeters, until `assemble` turns them into RAS+.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import IO, Any

from vesalius.errors import CorruptFile
from vesalius.io.dicom import values as v
from vesalius.io.dicom.dataset import DEFLATED, Forward, open_data_set, open_file
from vesalius.io.dicom.elements import WINDOW, Found, Tables, Take
from vesalius.io.dicom.template import Templates
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import PathLike

_CHUNK = 1 << 20

Floats = tuple[float, ...]


@dataclass(slots=True)
class Header:
    """Attributes of one DICOM file; None where it does not state them. Treat it as frozen.

    Patient name, ID, birth date, UIDs and descriptions are patient data: never log them.
    """

    transfer_syntax: str | None = None
    sop_class: str | None = None
    sop_instance: str | None = None
    study_uid: str | None = None
    series_uid: str | None = None
    frame_of_reference: str | None = None
    patient_id: str | None = None
    patient_name: str | None = None
    patient_birth_date: str | None = None
    patient_sex: str | None = None
    patient_age: str | None = None
    patient_position: str | None = None
    study_date: str | None = None
    acquisition_date: str | None = None
    acquisition_time: str | None = None
    content_time: str | None = None
    modality: str | None = None
    body_part: str | None = None
    laterality: str | None = None
    view: str | None = None
    study_description: str | None = None
    series_description: str | None = None
    protocol: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    device: str | None = None
    station: str | None = None
    institution: str | None = None
    field_strength: float | None = None  # tesla
    kvp: float | None = None  # kilovolts
    kernel: str | None = None
    image_type: tuple[str, ...] | None = None
    complex_component: str | None = None
    series_number: int | None = None
    acquisition_number: int | None = None
    instance_number: int | None = None
    echo: int | None = None
    echo_time: float | None = None  # milliseconds
    repetition_time: float | None = None  # milliseconds
    inversion_time: float | None = None  # milliseconds
    b_value: float | None = None  # s/mm2
    temporal_position: int | None = None
    trigger_time: float | None = None  # milliseconds
    frame_reference_time: float | None = None  # milliseconds
    frame_time: float | None = None  # milliseconds
    rows: int | None = None
    columns: int | None = None
    frames: int | None = None
    samples: int | None = None
    planar: int | None = None
    bits_allocated: int | None = None
    bits_stored: int | None = None
    high_bit: int | None = None
    pixel_representation: int | None = None
    photometric: str | None = None
    padding: int | None = None  # PixelPaddingValue, raw 16 bits
    slope: float | None = None
    intercept: float | None = None
    rescale_type: str | None = None
    modality_lut: bool | None = None  # a ModalityLUTSequence is there
    palette: bool | None = None  # palette color lookup tables are there
    units: str | None = None  # (0054,1001), PET
    dose_units: str | None = None
    dose_scaling: float | None = None
    burned_in: str | None = None
    lossy: str | None = None
    orientation: Floats | None = None  # direction cosines of a row, then of a column, LPS+
    position: Floats | None = None  # center of the first pixel, LPS+ millimeters
    slice_location: float | None = None
    pixel_spacing: Floats | None = None  # between rows, between columns
    imager_spacing: Floats | None = None  # the same at the detector
    nominal_spacing: Floats | None = None  # the same at the object scanned (photographs)
    slice_thickness: float | None = None
    spacing_between: float | None = None
    gantry_tilt: float | None = None  # degrees
    frame_offsets: Floats | None = None  # RTDOSE: millimeters along the normal
    us_regions: Floats | None = None  # ten numbers each, see `US_REGION`
    functional_groups: bool | None = None  # per-frame functional groups are there
    tile_columns: int | None = None  # total pixel matrix of tiled images
    tile_rows: int | None = None
    referenced_series: tuple[str, ...] | None = None
    pixel_tag: int | None = None  # 0x7FE00010, or float 0x7FE00008, or double 0x7FE00009
    pixel_offset: int | None = None  # in the file; in the inflated data set for deflated ones
    pixel_length: int | None = None  # -1 for encapsulated
    file_size: int | None = None
    sha256: str | None = None  # of the whole file, when asked for
    invalid: tuple[str, ...] | None = None  # attributes whose value breaks its VR

    def to_tuple(self) -> tuple[str | int | float | None, ...]:
        """Return the values as SQLite stores them, lists joined by backslashes."""
        row = list(_ALL(self))
        for n in _LISTS:
            if row[n] is not None:
                row[n] = "\\".join(map(str, row[n]))
        return tuple(row)

    @classmethod
    def from_tuple(cls, row: tuple[Any, ...]) -> Header:
        """Return the header that `to_tuple` made `row` from."""
        full = list(row)
        for n, kind in _LISTS.items():
            if full[n] is not None:
                full[n] = tuple(map(kind, full[n].split("\\")))
        for n in _FLAGS:
            if full[n] is not None:
                full[n] = bool(full[n])
        return cls(*full)

    @property
    def frame_bytes(self) -> int | None:
        """Bytes of one frame as the pixel module describes it, uncompressed; None without one."""
        if not self.rows or not self.columns or not self.bits_allocated:
            return None
        samples = self.samples or 1
        if self.photometric == "YBR_FULL_422":
            samples = 2
        return (self.rows * self.columns * samples * self.bits_allocated + 7) // 8

    @property
    def missing_bytes(self) -> int:
        """Bytes of native pixel data that the file announces and does not hold."""
        if self.pixel_offset is None or self.pixel_length is None or self.pixel_length < 0:
            return 0
        frame = self.frame_bytes or 0
        bits = frame * 8 if self.bits_allocated != 1 else (self.rows or 0) * (self.columns or 0)
        wanted = max(self.pixel_length, (bits * (self.frames or 1) + 7) // 8)
        held = self.pixel_length
        if self.transfer_syntax not in DEFLATED and self.file_size is not None:
            held = min(held, self.file_size - self.pixel_offset)
        return max(0, wanted - held)


_NAMES = [field.name for field in fields(Header)]
_ALL = attrgetter(*_NAMES)
_STRINGS = {"image_type", "referenced_series", "invalid"}
_LISTS: dict[int, Callable[[str], Any]] = {
    n: str if field.name in _STRINGS else float
    for n, field in enumerate(fields(Header))
    if "tuple" in str(field.type) or "Floats" in str(field.type)
}
_FLAGS = [n for n, field in enumerate(fields(Header)) if str(field.type).startswith("bool")]

# The numbers of one ultrasound region (PS3.3 C.8.5.5), as `Header.us_regions` lists them.
US_REGION = ("left", "top", "right", "bottom", "units_x", "units_y", "delta_x", "delta_y",
             "spatial_format", "data_type")  # fmt: skip
_US_REGION = {
    0x00186018: "left", 0x0018601A: "top", 0x0018601C: "right", 0x0018601E: "bottom",
    0x00186024: "units_x", 0x00186026: "units_y", 0x0018602C: "delta_x", 0x0018602E: "delta_y",
    0x00186012: "spatial_format", 0x00186014: "data_type",
}  # fmt: skip
_CODE_MEANING = {0x00080104: "meaning"}
_SERIES = {0x0020000E: "series_uid"}


def _readers(big: bool) -> dict[str, tuple[int, Callable[[bytes], Any] | None]]:
    """Return attribute -> (tag, reader of its raw value); no reader: text in a character set."""
    short = v.binary("H", big=big)
    long = v.binary("I", big=big)
    double = v.binary("d", big=big)
    return {
        "image_type": (0x00080008, v.codes),
        "sop_class": (0x00080016, v.uid),
        "sop_instance": (0x00080018, v.uid),
        "study_date": (0x00080020, v.code),
        "acquisition_date": (0x00080022, v.code),
        "acquisition_time": (0x00080032, v.code),
        "content_time": (0x00080033, v.code),
        "modality": (0x00080060, v.code),
        "manufacturer": (0x00080070, None),
        "institution": (0x00080080, None),
        "station": (0x00081010, None),
        "study_description": (0x00081030, None),
        "series_description": (0x0008103E, None),
        "model": (0x00081090, None),
        "complex_component": (0x00089208, v.code),
        "patient_name": (0x00100010, None),
        "patient_id": (0x00100020, None),
        "patient_birth_date": (0x00100030, v.code),
        "patient_sex": (0x00100040, v.code),
        "patient_age": (0x00101010, v.code),
        "body_part": (0x00180015, v.code),
        "slice_thickness": (0x00180050, v.decimal),
        "kvp": (0x00180060, v.decimal),
        "repetition_time": (0x00180080, v.decimal),
        "echo_time": (0x00180081, v.decimal),
        "inversion_time": (0x00180082, v.decimal),
        "echo": (0x00180086, v.integer),
        "field_strength": (0x00180087, v.decimal),
        "spacing_between": (0x00180088, v.decimal),
        "device": (0x00181000, None),
        "protocol": (0x00181030, None),
        "trigger_time": (0x00181060, v.decimal),
        "frame_time": (0x00181063, v.decimal),
        "gantry_tilt": (0x00181120, v.decimal),
        "imager_spacing": (0x00181164, v.decimals(2)),
        "kernel": (0x00181210, v.first),
        "nominal_spacing": (0x00182010, v.decimals(2)),
        "patient_position": (0x00185100, v.code),
        "view": (0x00185101, v.code),
        "b_value": (0x00189087, double),
        "study_uid": (0x0020000D, v.uid),
        "series_uid": (0x0020000E, v.uid),
        "series_number": (0x00200011, v.integer),
        "acquisition_number": (0x00200012, v.integer),
        "instance_number": (0x00200013, v.integer),
        "position": (0x00200032, v.decimals(3)),
        "orientation": (0x00200037, v.decimals(6)),
        "frame_of_reference": (0x00200052, v.uid),
        "laterality": (0x00200060, v.code),
        "image_laterality": (0x00200062, v.code),
        "temporal_position": (0x00200100, v.integer),
        "slice_location": (0x00201041, v.decimal),
        "samples": (0x00280002, short),
        "photometric": (0x00280004, v.code),
        "planar": (0x00280006, short),
        "frames": (0x00280008, v.integer),
        "rows": (0x00280010, short),
        "columns": (0x00280011, short),
        "pixel_spacing": (0x00280030, v.decimals(2)),
        "bits_allocated": (0x00280100, short),
        "bits_stored": (0x00280101, short),
        "high_bit": (0x00280102, short),
        "pixel_representation": (0x00280103, short),
        "padding": (0x00280120, short),
        "burned_in": (0x00280301, v.code),
        "intercept": (0x00281052, v.decimal),
        "slope": (0x00281053, v.decimal),
        "rescale_type": (0x00281054, v.code),
        "palette": (0x00281101, v.present),
        "lossy": (0x00282110, v.code),
        "tile_columns": (0x00480006, long),
        "tile_rows": (0x00480007, long),
        "units": (0x00541001, v.code),
        "frame_reference_time": (0x00541300, v.decimal),
        "dose_units": (0x30040002, v.code),
        "frame_offsets": (0x3004000C, v.decimals()),
        "dose_scaling": (0x3004000E, v.decimal),
    }


_READERS = [{name: reader for name, (_, reader) in _readers(big).items()} for big in (False, True)]
_US_READERS = [
    dict.fromkeys(("left", "top", "right", "bottom"), v.binary("I", big=big))
    | dict.fromkeys(("delta_x", "delta_y"), v.binary("d", big=big))
    | dict.fromkeys(("units_x", "units_y", "spatial_format", "data_type"), v.binary("H", big=big))
    for big in (False, True)
]
_SEQUENCES = {"regions", "modality_lut", "functional_groups", "series", "frames_of", "anatomy",
              "view_code"}  # fmt: skip
_TABLES = Tables(
    {tag: name for name, (tag, _) in _readers(False).items()}
    | {
        0x00080005: "character_set",
        0x00081115: ("series", _SERIES),
        0x00082218: ("anatomy", _CODE_MEANING),
        0x00186011: ("regions", _US_REGION),
        0x00283000: ("modality_lut", {}),
        0x00540220: ("view_code", _CODE_MEANING),
        0x30060010: ("frames_of", {0x30060012: ("studies", {0x30060014: ("series", _SERIES)})}),
        0x52009230: ("functional_groups", {}),
    }
)


def read_header(
    source: PathLike | IO[bytes], *, limits: Limits = DEFAULT_LIMITS, digest: bool = False
) -> Header:
    """Read the header of one DICOM file; pixel data are never read.

    Args:
        source: a path, or a binary stream at its start (read forward only).
        limits: bounds on elements, depth and inflated bytes.
        digest: also return the SHA-256 of the file (paths only).

    Raises:
        UnsupportedFormat: not a DICOM file.
        CorruptFile: an element breaks its encoding, or a UID is none.
        LimitExceeded: more elements, deeper sequences or more inflated bytes than allowed.
        OSError: the file cannot be opened.
    """
    if not isinstance(source, str | os.PathLike):
        return _parse(Forward(iter(lambda: source.read(WINDOW), b"")).take, -1, limits, "")
    path = os.fspath(source)
    with open_file(path) as (handle, size):
        held = os.read(handle, WINDOW)

        def take(offset: int, count: int) -> bytes:
            return os.pread(handle, count, offset) if offset else held

        try:
            attributes = _TEMPLATES.read(held, limits, _decode)
        except (ValueError, CorruptFile):  # a value is wrong: said where every element is read
            attributes = None
        if attributes is not None:
            header = Header(**attributes)
        else:
            header = _parse(take, size, limits, path)
            if not header.invalid:
                found = {name: getattr(header, name) for name in Header.__slots__}
                _TEMPLATES.learn(held, _TABLES.little, found, limits)
        header.file_size = size
        if digest:
            sha = hashlib.sha256(held)
            offset = len(held)
            while piece := os.pread(handle, _CHUNK, offset):
                sha.update(piece)
                offset += len(piece)
            header.sha256 = sha.hexdigest()
    return header


_TEMPLATES = Templates()


def _decode(name: str, raw: bytes, character_set: bytes) -> Any:
    reader = _READERS[False][name]
    return v.text(raw, character_set) if reader is None else reader(raw)


def _parse(take: Take, size: int, limits: Limits, path: str) -> Header:
    data_set = open_data_set(take, size, limits=limits, path=path)
    found, pixels = data_set.collect(_TABLES, limits, path)
    big = data_set.order.big
    character_set = found.pop("character_set", b"")
    readers = _READERS[big]
    result: dict[str, Any] = {}
    invalid: list[str] = []
    for name, raw in found.items():
        if raw.__class__ is list:
            continue
        try:
            reader = readers[name]
            result[name] = v.text(raw, character_set) if reader is None else reader(raw)
        except ValueError:
            invalid.append(name)
        except CorruptFile as error:
            raise CorruptFile(f"{name}: {error.reason}", path=path) from None
    if "image_laterality" in result:
        result["laterality"] = result.pop("image_laterality") or result.get("laterality")
    if not _SEQUENCES.isdisjoint(found):
        try:
            _sequences(found, result, character_set, big)
        except CorruptFile as error:
            raise CorruptFile(error.reason, path=path) from None
    if pixels:
        result["pixel_tag"], result["pixel_offset"], result["pixel_length"] = pixels
    header = Header(**result)
    header.transfer_syntax = data_set.transfer_syntax
    if header.sop_class is None:
        header.sop_class = data_set.media_class
    if invalid:
        header.invalid = tuple(invalid)
    return header


def _sequences(found: Found, result: Found, charset: bytes, big: bool) -> None:
    """Turn the sequences that were asked for into attributes."""
    for name in ("modality_lut", "functional_groups"):
        if name in found:
            result[name] = bool(found[name])
    for name, attribute in (("anatomy", "body_part"), ("view_code", "view")):
        if found.get(name) and not result.get(attribute):
            result[attribute] = v.text(found[name][0].get("meaning", b""), charset)
    studies = [study for frame in found.get("frames_of", ()) for study in frame.get("studies", ())]
    series = [item for study in studies for item in study.get("series", ())]
    series += found.get("series", ())
    named = [v.uid(item.get("series_uid", b"")) for item in series]
    if any(named):
        result["referenced_series"] = tuple(dict.fromkeys(uid for uid in named if uid))
    regions: list[float] = []
    for region in found.get("regions", ()):
        try:
            numbers = [_US_READERS[big][name](region[name]) for name in US_REGION]
        except (KeyError, ValueError):
            continue  # an incomplete region calibrates nothing
        regions += map(float, numbers)
    if regions:
        result["us_regions"] = tuple(regions)
