# SPDX-License-Identifier: Apache-2.0
"""What a run says of one exam, for people and for machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vesalius.types import Json

# format -> suffix of the written file
FORMATS = {
    "dicom-seg": ".dcm",
    "dicom-labelmap": ".dcm",  # a segmentation too, of one value a voxel (Supplement 243)
    "rtstruct": ".dcm",
    "nifti": ".nii.gz",
    "nrrd": ".seg.nrrd",
    "minc2": ".mnc",
}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a run says of one exam.

    Attributes:
        task: `classify` or `segment`.
        files: what was written, label maps first.
        previews: pictures of the label maps over their images. Patient data.
        probabilities: class -> probability (classify).
        volumes_ml: for each label map, structure -> milliliters (segment).
        notes: images that were left out and why; structures to look at and why.
        answer: all that a classifier says: `label_set`, `outlier`, `abstained`, `influence`, ….
        expected_dice: for each label map, structure -> Dice score to be expected (segment).
        geometry: of each label map's file, read back: `off_grid_mm` from the image's voxels,
            `voxels_changed`; of contours `lowest_dice` of what they enclose (segment).
    """

    task: str
    files: tuple[Path, ...]
    previews: tuple[Path, ...] = ()
    probabilities: Mapping[str, float] = field(default_factory=dict)
    volumes_ml: tuple[Mapping[str, float], ...] = ()
    notes: tuple[str, ...] = ()
    answer: Mapping[str, Any] = field(default_factory=dict)
    expected_dice: tuple[Mapping[str, float], ...] = ()
    geometry: tuple[Mapping[str, Any], ...] = ()

    @property
    def predicted(self) -> str:
        """The answer of a classifier, or `` where it abstains."""
        return str(self.answer.get("predicted", ""))

    def to_json(self) -> Json:
        """Return all of it, for machines."""
        found: Json = (
            dict(self.answer)
            if self.task == "classify"
            else {
                "volumes_ml": [dict(volumes) for volumes in self.volumes_ml],
                "expected_dice": [dict(scores) for scores in self.expected_dice],
                "geometry": [dict(proof) for proof in self.geometry],
            }
        )
        return {
            "task": self.task,
            **found,
            "files": [str(path) for path in self.files],
            "previews": [str(path) for path in self.previews],
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """Return all of it, for people."""
        ranked = sorted(self.probabilities.items(), key=lambda item: -item[1])
        out = [f"{name}: {value:.3f}" for name, value in ranked]
        for path, volumes, dice in zip(
            self.files, self.volumes_ml, self.expected_dice, strict=False
        ):
            sizes = ", ".join(
                f"{name} {value:.1f} ml (expected Dice {dice[name]:.2f})"
                for name, value in volumes.items()
            )
            out.append(f"{path}: {sizes}")
        if self.task == "classify":
            out += self._answer_lines()
        out += [f"written: {path}" for path in self.files[len(self.volumes_ml) :]]
        return [*out, *(f"preview: {path}" for path in self.previews), *self.notes]

    def _answer_lines(self) -> list[str]:
        held = self.answer
        out = []
        if held.get("value") is not None:
            interval = held.get("interval")
            bounds = f" ({interval[0]:.4g} to {interval[1]:.4g})" if interval else ""
            out.append(f"{held['target']}: {held['value']:.4g}{bounds}")
        if held.get("label_set"):
            out.append(f"label set: {', '.join(held['label_set'])}")
        if held.get("called"):
            out.append(f"by the run's operating point: {held['called']}")
        if held.get("abstained"):
            out.append(f"abstained: {held['abstained']}")
        return out
