# SPDX-License-Identifier: Apache-2.0
"""The one table of findings: name, severity, what it means, the way out.

`markdown()` is the text of `docs/reference/findings.md`; a test holds that page current.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vesalius.results import Finding, Severity


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding.

    Attributes:
        severity: `error` (do not train on it), `warning` (look at it), `info`.
        what: what it means, for a reader who meets the name for the first time.
        way_out: what to do about it.
    """

    severity: Severity
    what: str
    way_out: str


FINDINGS: dict[str, Kind] = {
    # files
    "unreadable-file": Kind(
        "error", "a file cannot be read", "restore it from its origin or leave it out"
    ),
    "unsupported-format": Kind(
        "warning", "a file is in a format that is not read", "convert it, or leave it out"
    ),
    "corrupt-file": Kind(
        "error", "a file breaks the format that it claims", "restore it from its origin"
    ),
    "limit-exceeded": Kind(
        "error",
        "a file announces or unpacks to more than the reading budget",
        "if you trust it, raise --max-image-memory",
    ),
    "truncated-pixel-data": Kind(
        "error", "a file has fewer pixel bytes than its header says", "transfer it again"
    ),
    # geometry of a series
    "irregular-geometry": Kind(
        "error", "slices do not form one regular grid", "mend the series or resample it"
    ),
    "missing-slices": Kind(
        "error", "positions of a series jump over slices", "fetch the missing instances"
    ),
    "duplicate-slices": Kind(
        "warning", "two slices share a position or all their pixels", "remove the copies"
    ),
    "uneven-spacing": Kind(
        "error", "the distance between slices varies", "resample the series on purpose"
    ),
    "orientation-contradiction": Kind(
        "error",
        "positions and orientation, or two statements of orientation, disagree",
        "find out which is right; left and right may be swapped",
    ),
    "mixed-orientation": Kind(
        "warning", "one series holds slices of several orientations", "they are read as stacks"
    ),
    "gantry-tilt": Kind(
        "warning",
        "slices are stacked at an angle to their normal",
        "resample the series; a plain stack of it is sheared",
    ),
    "no-spacing": Kind(
        "warning", "the file states no pixel spacing", "millimeters and volumes mean nothing"
    ),
    "no-position": Kind(
        "warning",
        "slices state no position",
        "their order follows the instance numbers and is not proven",
    ),
    "two-patients": Kind(
        "error", "one series names more than one patient", "separate them at the archive"
    ),
    "two-studies": Kind(
        "error", "one series belongs to more than one study", "separate them at the archive"
    ),
    # intensities
    "non-finite-values": Kind(
        "error", "voxels are NaN or infinite", "find the step that made them; mask them out"
    ),
    "constant-image": Kind("error", "all voxels have one value", "leave it out"),
    "near-constant-image": Kind(
        "warning", "98 of 100 voxels or more have one value", "look whether there is an image"
    ),
    "constant-slice": Kind(
        "warning", "a slice between others has one value only", "the slice was lost; fetch it"
    ),
    "uneven-slope": Kind(
        "error",
        "slices of one series are scaled differently",
        "apply each slice's own rescale slope, or leave the series out",
    ),
    "clipping": Kind(
        "warning",
        "a part of the values is cut off at one maximum",
        "export again without a window, with all stored bits",
    ),
    "extreme-noise": Kind(
        "warning", "noise is nearly as strong as the signal", "look at it; leave it out"
    ),
    "noisy-slice": Kind(
        "warning", "a slice is much noisier than its neighbors", "look at it; leave it out"
    ),
    "strong-bias-field": Kind(
        "warning", "brightness drifts strongly across the tissue", "correct it (N4) first"
    ),
    "ghosting-suspected": Kind(
        "warning",
        "air along one axis is bright, as motion ghosts make it",
        "look at it; repeat the scan or leave it out",
    ),
    "inverted-photometric": Kind(
        "error", "air is the brightest: black and white are swapped", "invert the image"
    ),
    "not-hounsfield": Kind(
        "warning",
        "a CT is not in Hounsfield units",
        "apply slope and intercept, or export without a window; do not mix it with true HU",
    ),
    "mixed-scanner-scale": Kind(
        "info",
        "scanners of one modality use intensities of very different size",
        "normalize each image (the default does)",
    ),
    "burned-in-text-suspected": Kind(
        "warning",
        "hard bright strokes in rows, as burned-in text makes them",
        "look for patient data and shortcuts; crop or cover them",
    ),
    "tiny-image": Kind(
        "warning", "an image has fewer than 16 pixels along a side", "is it a thumbnail?"
    ),
    "huge-image": Kind(
        "warning", "an image has over 2^28 voxels or a side over 16,384", "tile or resample it"
    ),
    # masks
    "mask-off-grid": Kind(
        "error", "a mask does not lie on the grid of its image", "resample it onto the image"
    ),
    "empty-mask": Kind(
        "warning", "a mask marks nothing", "confirm that nothing is there, else draw it"
    ),
    "unknown-label-value": Kind(
        "error", "a mask holds a value that has no name", "name it, or mend the mask"
    ),
    "constant-mask": Kind("warning", "a mask marks every voxel", "is it the right file?"),
    # the whole cohort
    "exact-duplicate": Kind(
        "warning", "several rows hold the same voxels", "keep one; splits keep them together"
    ),
    "near-duplicate": Kind(
        "info", "several rows look the same", "splits keep them together; nothing to do"
    ),
    "near-duplicate-across-patients": Kind(
        "warning",
        "images of different patients look the same",
        "one may be misfiled or copied; splits keep them together",
    ),
    "leaking-split": Kind(
        "error",
        "official splits share a patient or the same image",
        "make your own split, or leave the rows out of one side",
    ),
    "label-without-image": Kind(
        "warning", "a label names an image that is not there", "fetch it, or correct the name"
    ),
    "image-without-label": Kind(
        "info", "an image has no label while others have", "label it; training passes it over"
    ),
    "image-without-mask": Kind(
        "info", "an image has no mask while others have", "draw it; training passes it over"
    ),
    "mask-without-image": Kind(
        "warning", "a mask belongs to no image that is there", "fetch the image, or its name"
    ),
}


def finding(
    name: str,
    message: str,
    evidence: Mapping[str, Any] | None = None,
    *,
    severity: Severity | None = None,
    key: str = "",
    file: str = "",
    at_slice: int | None = None,
) -> Finding:
    """Return a `Finding` of the table, its message completed by the way out.

    `message` says what was found and what was expected, free of patient data, without a period.
    Raises KeyError for a name that the table does not have: a defect of the caller.
    """
    kind = FINDINGS[name]
    return Finding(
        name=name,
        severity=severity or kind.severity,
        message=f"{message}; {kind.way_out}",
        evidence=dict(evidence or {}),
        key=key,
        file=file,
        slice=at_slice,
    )


def markdown() -> str:
    """Return the table as Markdown."""
    lines = [
        "# Findings",
        "",
        "Generated by `vesalius.cohorts.quality.findings.markdown`; a test holds it current.",
        "An `error` should not be trained on; a `warning` wants a look.",
        "",
        "| finding | severity | what it means | way out |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{name}` | {kind.severity} | {kind.what} | {kind.way_out} |"
        for name, kind in FINDINGS.items()
    ]
    return "\n".join(lines) + "\n"
