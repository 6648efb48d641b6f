# SPDX-License-Identifier: Apache-2.0
"""What a DICOM instance is: an image to learn from, or a localizer, capture, document, object.

SOP classes after PS3.4 B.5 and PS3.6 table A-1; ImageType after PS3.3 C.7.6.1.1.2.
"""

from __future__ import annotations

import re
from functools import lru_cache

from vesalius.io.dicom.header import Header

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_BY_CLASS = {
    "7": "secondary-capture",
    "9": "waveform",
    "11": "presentation",
    "66": "raw",
    "66.1": "registration",
    "66.2": "registration",
    "66.3": "registration",
    "66.4": "segmentation",
    "66.5": "segmentation",
    "66.7": "segmentation",
    "30": "parametric-map",
    "67": "document",
    "77.1.5.4": "image",
    "88": "document",
    "104": "document",
    "481.2": "dose",
    "481.3": "structure-set",
    "481.4": "plan",
    "481.5": "plan",
    "481.6": "plan",
    "481.7": "plan",
    "481.8": "plan",
    "481.9": "plan",
    "4.2": "spectroscopy",
}
_DIRECTORY = "1.2.840.10008.1.3.10"
# Words of series descriptions, by modality, for scanners whose ImageType does not say so.
_LOCALIZER = {
    "CT": re.compile(r"\b(scout|surview|topogram|scanogram)\b", re.IGNORECASE),
    "MR": re.compile(r"\b(locali[sz]ers?|loc|scout|survey|3[- ]?pl(ane)?)\b", re.IGNORECASE),
}
# What `assemble` makes a volume of.
IMAGES = frozenset({"image", "localizer", "secondary-capture", "dose", "parametric-map"})


def kind_of(header: Header) -> str:
    """Return `image`, `localizer`, `secondary-capture`, `mosaic`, `tiled`, `document`, ….

    Tiled whole-slide images and Siemens mosaics hold pixels that are no plane of the patient, so
    they are kinds of their own. `other` is anything without pixels that no name fits.
    """
    return _kind(
        header.sop_class or "",
        bool(header.rows and header.columns),
        header.image_type or (),
        bool(header.tile_columns and header.tile_rows and (header.frames or 1) > 1),
        header.modality or "",
        header.series_description or "",
        header.protocol or "",
    )


@lru_cache(maxsize=256)  # the instances of a series ask the same
def _kind(
    sop: str,
    has_pixels: bool,
    image_type: tuple[str, ...],
    is_tiled: bool,
    modality: str,
    *descriptions: str,
) -> str:
    if sop == _DIRECTORY:
        return "directory"
    if sop.startswith(_STORAGE):
        parts = sop[len(_STORAGE) :].split(".")
        for length in (4, 3, 2, 1):
            kind = _BY_CLASS.get(".".join(parts[:length]))
            if kind:
                break
        else:
            kind = "image"
    else:
        kind = "image"
    if kind in ("image", "secondary-capture"):
        if not has_pixels:
            return "other"
        if is_tiled:
            return "tiled"
        kind = _refine(kind, {value.upper() for value in image_type}, modality, descriptions)
    return kind


def _refine(kind: str, types: set[str], modality: str, descriptions: tuple[str, ...]) -> str:
    if "MOSAIC" in types:
        return "mosaic"
    if types & {"SCREEN SAVE", "DOSE_INFO", "DOSE REPORT"}:
        return "secondary-capture"
    if types & {"LOCALIZER", "SCOUT", "TOPOGRAM"}:
        return "localizer"
    words = _LOCALIZER.get(modality)
    if words and any(words.search(said) for said in descriptions):
        return "localizer"
    return kind
