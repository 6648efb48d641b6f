# SPDX-License-Identifier: Apache-2.0
"""What a layout says about one image file, and the words that layouts share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from vesalius.cohorts.index import Entry
from vesalius.cohorts.layouts.catalog import Catalog
from vesalius.types import Json

SPLITS = {
    "train": "train", "training": "train", "trn": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "tst": "test",
}  # fmt: skip
MODALITIES = {
    "ct": "CT", "cbct": "CT", "cta": "CT", "ldct": "CT", "cect": "CT",
    "mr": "MR", "mri": "MR", "t1": "MR", "t2": "MR", "t1w": "MR", "t2w": "MR", "t1c": "MR",
    "t1ce": "MR", "t1gd": "MR", "flair": "MR", "dwi": "MR", "adc": "MR", "bold": "MR", "swi": "MR",
    "t2star": "MR", "t2starw": "MR", "pd": "MR", "pdw": "MR", "t1map": "MR", "t2map": "MR",
    "t1rho": "MR", "inplanet1": "MR", "inplanet2": "MR", "angio": "MR", "asl": "MR", "m0scan": "MR",
    "sbref": "MR", "cest": "MR", "unit1": "MR", "tof": "MR", "mra": "MR", "cine": "MR",
    "pet": "PT", "pt": "PT", "us": "US", "ultrasound": "US", "echo": "US", "sonography": "US",
    "xray": "DX", "xr": "DX", "dx": "DX", "cr": "CR", "cxr": "DX", "mammo": "MG", "mg": "MG",
    "mammography": "MG", "fundus": "OP", "oct": "OPT", "dermoscopy": "XC", "spect": "NM",
    "nm": "NM",
}  # fmt: skip
IMAGE_WORDS = frozenset({"image", "images", "img", "imgs", "imaging", "volume", "volumes", "vol",
                         "scan", "scans", "raw"})  # fmt: skip
MASK_WORDS = frozenset({"mask", "masks", "seg", "segs", "segmentation", "segmentations", "label",
                        "labels", "labelmap", "labelmaps", "roi", "rois", "gt", "groundtruth",
                        "annotation", "annotations", "dseg", "contour", "contours"})  # fmt: skip
_SUFFIX = re.compile(r"(\.(nii|mnc|img|hdr|mgh))?\.[A-Za-z0-9]{1,5}$")


@dataclass(slots=True)
class Facts:
    """What the place and the name of an image file tell.

    Attributes:
        patient: identifier as it stands there, or `` when nothing tells.
        study: parts of an identifier of the visit.
        files: names of all channels of the case, in order, when they are several.
        mask: path of its mask, below the root.
        mask_names: value -> structure.
        labels: label -> value.
        split: official subset.
    """

    patient: str = ""
    study: tuple[str, ...] = ()
    modality: str = ""
    scanner: str = ""
    description: str = ""
    words: str = ""
    split: str = ""
    files: tuple[str, ...] = ()
    mask: str = ""
    mask_names: Mapping[str, str] | None = None
    boxes: Sequence[Json] | None = None
    labels: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mask:
    """The file is a mask; `has_image` is whether the image it belongs to is there."""

    has_image: bool


class Passed:
    """The file is part of another one's case and makes no row of its own."""


class Layout(Protocol):
    """One recognized arrangement of files below `base` (a folder relative to the root).

    `describe` is called for each image file below `base` (never for DICOM, NPZ and zip) and says
    what it is. It must be a function of the catalog alone, so that a rescan says the same.
    """

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def base(self) -> str:
        """The folder, relative to the root; `` is the root."""
        ...

    def describe(self, entry: Entry, catalog: Catalog) -> Facts | Mask | Passed:
        """Return what the file is."""


def stem(name: str) -> str:
    """Return a file name without its suffix, `.nii.gz` and the like taken as one."""
    return _SUFFIX.sub("", name)


def tokens(text: str) -> list[str]:
    """Return the words of a name in lower case: runs of letters and digits."""
    return re.findall(r"[a-z0-9]+", text.lower())


def modality_of(words: Sequence[str]) -> str:
    """Return the one DICOM modality that the words name, `` when none or several."""
    found = {MODALITIES[word] for word in words if word in MODALITIES}
    return found.pop() if len(found) == 1 else ""


def split_of(folder: str) -> str:
    """Return the official subset that a folder's path names, or ``."""
    for part in reversed(folder.split("/")):
        if part.lower() in SPLITS:
            return SPLITS[part.lower()]
    return ""


def below(path: str, base: str) -> bool:
    """Return whether `path` is `base` or lies below it; `` is the root."""
    return not base or path == base or path.startswith(base + "/")


def joined(*parts: str) -> str:
    """Return a path of the non-empty parts."""
    return "/".join(part for part in parts if part)
