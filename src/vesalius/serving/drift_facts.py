# SPDX-License-Identifier: Apache-2.0
"""Facts of one study for drift: how its images are, which scanner made them, what the run said.

No fact tells who the patient is: numbers of images and answers, manufacturer and model. A site is
an institution's name, and that is kept as a keyed hash alone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from vesalius.errors import VesaliusError
from vesalius.serving.attributes import LIMITS
from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.io.dicom.header import Header

QUANTILES = {"p1": 0.01, "p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99}
_MOST_LOOKED_AT = 5  # instances of a series whose pixels are read
_MOST_VOXELS = 1 << 26  # of one instance whose pixels are read
_MOST_VALUES = 1 << 18  # of one instance that count
_MOST_OUTPUTS = 32
_UNKNOWN = "unknown"
_PLAIN = re.compile(r"[^A-Za-z0-9 ._+()/-]+")


@dataclass(frozen=True, slots=True)
class Facts:
    """Scanner, site, and fact -> number, or event as a boolean."""

    scanner: str
    site: str
    values: dict[str, float | bool]

    def refused(self) -> Facts:
        """Return them of a study that the run refused."""
        return replace(self, values={**self.values, "refused": True})

    def answered(self, answer: Json) -> Facts:
        """Return them with what the run said of the study."""
        return replace(self, values={**self.values, **_of_answer(answer)})


NONE = Facts(_UNKNOWN, f"site {_UNKNOWN}", {})


def of_images(exam: Path, pseudonym: Callable[[str], str]) -> Facts:
    """Return facts of the images in a folder; what cannot be read has none.

    Of each series five instances at most are read, evenly spaced, so that the cost does not grow
    with the series.

    Args:
        exam: folder of the study's files.
        pseudonym: keyed hash.
    """
    from vesalius.io.dicom.header import read_header
    from vesalius.io.formats import is_dicom_file

    series: dict[str, list[tuple[int, Path, Header]]] = defaultdict(list)
    for path in sorted(exam.iterdir()):
        if not is_dicom_file(path):
            continue
        try:
            head = read_header(path, limits=LIMITS)
        except VesaliusError:
            continue  # the run itself says what cannot be read
        series[head.series_uid or ""].append((head.instance_number or 0, path, head))
    gathered: dict[str, list[float]] = defaultdict(list)
    scanner, site = NONE.scanner, ""
    for members in series.values():
        members.sort(key=lambda one: (one[0], str(one[1])))
        head = members[0][2]
        scanner = _scanner(head) or scanner
        site = head.institution or site
        for name, value in _of_series(members).items():
            gathered[f"{head.modality or 'image'} {name}"].append(value)
    values: dict[str, float | bool] = {name: fmean(held) for name, held in gathered.items()}
    named = pseudonym(site)[:8] if site.strip() else _UNKNOWN
    return Facts(scanner, f"site {named}", values)


def _of_answer(answer: Json) -> dict[str, float | bool]:
    """Return facts of what the run said: classes, probabilities, volumes, what it left out."""
    found: dict[str, float | bool] = {"refused": False}
    notes = [str(note) for note in answer.get("notes", ())]
    found["image left out"] = any("left out" in note for note in notes)
    if "abstained" in answer:
        found["abstained"] = bool(answer["abstained"])
    probabilities = dict(answer.get("probabilities") or {})
    if probabilities:
        predicted = answer.get("predicted")
        for name, value in list(probabilities.items())[:_MOST_OUTPUTS]:
            found[f"probability of {name}"] = float(value)
            found[f"answered {name}"] = name == predicted
    if isinstance(answer.get("value"), int | float):
        found["value"] = float(answer["value"])
    volumes: dict[str, float] = defaultdict(float)
    for image in answer.get("volumes_ml", ()):
        for name, value in list(image.items())[:_MOST_OUTPUTS]:
            volumes[name] += float(value)
    return found | {f"{name} ml": value for name, value in volumes.items()}


def of_validation(run: Path) -> dict[str, list[float]]:
    """Return fact -> values of a classifier's own test or validation cases; of others nothing."""
    from pyarrow import parquet

    path = run / "predictions.parquet"
    if not path.is_file():
        return {}
    names = [name for name in parquet.read_schema(path).names if name.startswith("p_")]
    if not names:
        return {}
    rows = parquet.read_table(path, columns=["split", "predicted", *names]).to_pylist()
    subsets = {row["split"] for row in rows}
    subset = next((name for name in ("test", "val") if name in subsets), None)
    kept = [row for row in rows if row["split"] == subset and row[names[0]] is not None]
    found: dict[str, list[float]] = {}
    for name in names[:_MOST_OUTPUTS]:
        known = name.removeprefix("p_")
        found[f"probability of {known}"] = [float(row[name]) for row in kept]
        found[f"answered {known}"] = [float(row["predicted"] == known) for row in kept]
    return found


def _of_series(members: list[tuple[int, Path, Header]]) -> dict[str, float]:
    """Return numbers of one series: size, spacing in mm, quantiles of its values."""
    import numpy as np

    from vesalius import io

    head = members[0][2]
    found = {"instances": float(len(members))}
    sizes = {"rows": head.rows, "columns": head.columns, "slice mm": head.slice_thickness}
    sizes["pixel mm"] = head.pixel_spacing[0] if head.pixel_spacing else None
    found |= {name: float(value) for name, value in sizes.items() if value is not None}
    step = -(-len(members) // _MOST_LOOKED_AT)
    seen = []
    for _, path, one in members[step // 2 :: step][:_MOST_LOOKED_AT]:
        if (one.frames or 1) * (one.rows or 0) * (one.columns or 0) > _MOST_VOXELS:
            continue
        try:
            values = io.read(path, limits=LIMITS).data.ravel()
        except VesaliusError:
            continue  # likewise
        seen.append(values[:: 1 + values.size // _MOST_VALUES])
    if seen:
        levels = np.quantile(np.concatenate(seen), list(QUANTILES.values()))
        found |= dict(zip(QUANTILES, levels.tolist(), strict=True))
    return found


def _scanner(head: Header) -> str:
    words = " ".join(filter(None, (head.manufacturer, head.model)))
    return _PLAIN.sub(" ", words).strip()[:64]
