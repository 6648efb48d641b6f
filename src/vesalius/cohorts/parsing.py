# SPDX-License-Identifier: Apache-2.0
"""One file to one entry of the index: hash, format, and the facts that planning needs."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from vesalius.cohorts.index import UNREADABLE, to_name
from vesalius.cohorts.packing import Packer
from vesalius.cohorts.pseudonyms import Pseudonyms
from vesalius.errors import ReadError, UnsupportedFormat, UsageError
from vesalius.io import formats
from vesalius.io.dicom.header import Header, read_header
from vesalius.io.dicom.kinds import IMAGES, kind_of
from vesalius.io.limits import Limits
from vesalius.results import Finding

_CHUNK = 1 << 20
_SILENT = frozenset({"json", "table", "text", "html", "pdf", "dicomdir", "minc-text"})
_DETACHED = re.compile(r"\.(raw|zraw|img|img\.gz|raw\.gz|gz|bin|dat)$", re.IGNORECASE)
_HEADERS = (".nhdr", ".mhd", ".hdr")
_UNREADABLE_IMAGES = frozenset({"mosaic", "tiled"})


@dataclass(frozen=True)
class Settings:
    """What workers need to know, sent once to each.

    Attributes:
        key: of the pseudonyms.
        roots: short name -> folder of each data root.
        pixels: whether pixels are read.
        limits: of reading one file.
    """

    key: bytes
    roots: Mapping[str, str]
    pixels: bool
    limits: Limits

    @cached_property
    def packer(self) -> Packer:
        """What packs the headers of one process."""
        return Packer()

    @cached_property
    def pseudonyms(self) -> Pseudonyms:
        """The function from identifiers to pseudonyms."""
        return Pseudonyms(self.key)


# base or None, id, sha, format, kind, series, facts, finding
Parsed = tuple[tuple[str, str] | None, int, str, str, str, str | None, str, str | None]


def parse(item: tuple[int, str, str, str, int], settings: Settings) -> Parsed:
    """Return what the index stores of one file (`Index.parsed`); never raises.

    `item` is `(id, root path, folder, name, size)` of the index. `facts` is the packed header for
    DICOM, the arrays of an NPZ, the boxes of a VOC annotation. A file that cannot be read has a
    finding and the kind `bad`; files that are no images have the kind `other`.
    """
    number, root, folder, name, _ = item
    path = f"{to_name(root)}/{to_name(folder)}/{to_name(name)}"
    base: tuple[str, str] | None = None
    sha, form, kind, series, facts = "", "", "bad", None, ""
    problem: str | None = None
    try:
        form = "dicom" if name[-4:].lower() == ".dcm" or _starts_as_dicom(path) else ""
        if form:
            try:
                sha, kind, series, facts, base = _dicom(path, folder, settings)
            except UnsupportedFormat:
                form = ""  # its suffix or its first bytes deceive
        if not form:
            sha = _sha256(path)
            form = formats.sniff(path)
            if form == "dicom":
                sha, kind, series, facts, base = _dicom(path, folder, settings)
        if form == "dicom":
            if kind in _UNREADABLE_IMAGES:
                problem = _finding(
                    "unsupported-format", f"{kind} DICOM images are not read", {"kind": kind}
                )
        elif form == "npz":
            kind, facts = "image", _arrays(path, settings.limits)
        elif _DETACHED.search(name) and _has_header(path):
            form, kind = "detached", "other"
        else:
            kind = "image"
    except ReadError as error:
        form, kind, problem = _refused(path, error)
        if form == "html" and path.lower().endswith(".xml"):
            form, kind, facts, problem = _annotation(path)
        sha = sha or _hash_or_none(path)
    except (OSError, UsageError) as error:
        why = error.strerror if isinstance(error, OSError) else "it cannot be opened"
        problem = _finding("unreadable-file", f"the file cannot be opened ({why})", {})
        sha = sha or UNREADABLE
    except Exception as error:  # hostile input may break a library anywhere: recorded, not raised
        problem = defect(error)
        sha = sha or _hash_or_none(path)
    return base, number, sha, form, kind, series, facts, problem


def defect(error: Exception) -> str:
    """Return the finding of a file that broke its reader in a way that no one foresaw."""
    where = type(error).__name__
    return _finding(
        "unreadable-file", f"reading it stopped with an unexpected {where}", {"exception": where}
    )


def finding_of(error: ReadError) -> str:
    """Return the finding that records a reading error."""
    return _finding(error.finding, error.reason, error.evidence)


def packed(one: Finding) -> str:
    """Return a finding as JSON."""
    return json.dumps(asdict(one), default=_plain)


def _finding(name: str, message: str, evidence: Mapping[str, Any]) -> str:
    from vesalius.cohorts.quality.findings import finding

    return packed(finding(name, message, evidence))


def _starts_as_dicom(path: str) -> bool:
    with open(path, "rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _dicom(
    path: str, folder: str, settings: Settings
) -> tuple[str, str, str | None, str, tuple[str, str] | None]:
    """Return hash, kind, series, header and base; files of no series are one with their folder."""
    header = read_header(path, limits=settings.limits, digest=True)
    kind = kind_of(header)
    sha = header.sha256 or ""
    if kind not in IMAGES and kind not in ("segmentation", "structure-set"):
        return sha, kind, None, "", None
    _pseudonymize(header, settings.pseudonyms)
    facts, base = settings.packer.pack(header)
    return sha, kind, header.series_uid or f"folder {folder}", facts, base


def _pseudonymize(header: Header, pseudonym: Pseudonyms) -> None:
    header.patient_id = pseudonym("patient", header.patient_id or "")
    header.institution = pseudonym("site", header.institution or "")
    header.patient_name = header.patient_birth_date = header.station = header.device = None


def _arrays(path: str, limits: Limits) -> str:
    from vesalius.io import npz

    found = npz.members(path, limits=limits)
    return json.dumps([[m.name, list(m.shape), m.dtype.str] for m in found])


def _refused(path: str, error: ReadError) -> tuple[str, str, str | None]:
    """Return format, kind and finding of a file that `sniff` or a header reader refused."""
    form = str(error.evidence.get("format") or "")
    if form in _SILENT:
        return form, "other", None
    if error.finding == "unsupported-format" and _has_header(path):
        return "detached", "other", None
    if error.finding == "unsupported-format" and not form and _is_text(path):
        return "text", "other", None
    return form, "bad", finding_of(error)


def _has_header(path: str) -> bool:
    """Return whether a file of bare voxels has its header file beside it."""
    match = _DETACHED.search(path)
    return match is not None and any(
        os.path.exists(path[: match.start()] + suffix) for suffix in _HEADERS
    )


def _annotation(path: str) -> tuple[str, str, str, str | None]:
    from vesalius.cohorts.layouts.voc import read_voc

    try:
        found = read_voc(path)
    except ReadError as error:
        return "html", "other", "", finding_of(error)
    if found is None:
        return "html", "other", "", None
    return "voc", "other", json.dumps(found), None


def _is_text(path: str) -> bool:
    with open(path, "rb") as stream:
        head = stream.read(2048)
    try:
        head[:2000].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < 1990:
            return False
    return b"\0" not in head


def _sha256(path: str) -> str:
    engine = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(_CHUNK):
            engine.update(piece)
    return engine.hexdigest()


def _hash_or_none(path: str) -> str:
    try:
        return _sha256(path)
    except OSError:
        return UNREADABLE


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
