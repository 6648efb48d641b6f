# SPDX-License-Identifier: Apache-2.0
"""What is asked for by `--format`: what an answer is written as, and what is made beside it."""

from __future__ import annotations

from dataclasses import dataclass

from vesalius.errors import UsageError, did_you_mean
from vesalius.flows.predicting.prediction import FORMATS

REPORT = "dicom-sr"
FHIR = "fhir"
KEY_IMAGES = "key-images"
OUTLINES = "gsps"
_BESIDE = {
    "segment": (*FORMATS, KEY_IMAGES, OUTLINES, REPORT, FHIR),
    "classify": (KEY_IMAGES, FHIR),
}
_FIRST = {"segment": ("auto", *FORMATS), "classify": ("auto", "json", REPORT)}
KNOWN = ("auto", *FORMATS, KEY_IMAGES, OUTLINES, "json", REPORT, FHIR)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Formats, checked.

    Attributes:
        first: of the answer itself: a label map's format, or a classifier's `auto`, `json`,
            `dicom-sr`.
        beside: what else is made of the same answer.
    """

    first: str
    beside: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, task: str) -> Wanted:
        """Read names that are joined by commas; the first that can be the answer itself is it.

        Raises:
            UsageError: an unknown name, or one that the task does not make.
        """
        names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
        names = ["minc2" if name == "minc" else name for name in names]
        for name in names:
            if name not in KNOWN:
                raise UsageError(
                    f"format must be one of {', '.join(KNOWN)}, got '{name}'."
                    f"{did_you_mean(name, KNOWN)}"
                )
        able = _FIRST["segment" if task == "segment" else "classify"]
        first = next((name for name in names if name in able), "auto")
        beside = tuple(name for name in names if name not in (first, "auto"))
        for name in beside:
            if name not in _BESIDE["segment" if task == "segment" else "classify"]:
                raise UsageError(_refusal(name, task))
        return cls(first, beside)


def _refusal(name: str, task: str) -> str:
    if task != "segment":
        return (
            f"the answer of a classifier is written as auto, json or {REPORT}, not as '{name}'; "
            f"beside it {KEY_IMAGES} and {FHIR} can be made"
        )
    return f"{name} and --explain belong to a classifier's answer"
