# SPDX-License-Identifier: Apache-2.0
"""Of which structures only the largest piece is kept: tried on validation images.

As in Isensee et al.: nnU-Net, Nature Methods 2021, but against chance: a higher mean Dice score
alone may come from one image. Counted by patient, the rule must also be better more often than
worse, as a one-sided sign test tells: five patients better and none worse are the fewest that do.
A second piece that is real costs Dice where it is taken away, so the rule is off where patients
have several.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vesalius import io
from vesalius.files import read_json, write_json
from vesalius.tasks.cases import Case
from vesalius.tasks.run import Run
from vesalius.tasks.segment.compare import compare, dice_scores
from vesalius.tasks.segment.grid import mask_codes
from vesalius.tasks.segment.largest_piece import FILE, keep_largest
from vesalius.tasks.segment.structures import Structures
from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

LEVEL = 0.05  # chance to keep a rule that helps and harms equally often


def decide_largest(
    run: Run, cohort: Cohort, cases: Sequence[Case], rows: Sequence[Json]
) -> list[Json]:
    """Write the record of what is kept; return the rows with the scores of what is kept.

    Args:
        run: with the label maps of the cases below `predictions`, all pieces in them.
        cohort: of the cases.
        cases: that were scored, and others.
        rows: of the cases that were scored, see `scoring.score_cases`.
    """
    structures, labels = Structures.of(run.decisions), run.decisions["labels"]
    values = dict(zip(labels, run.decisions["values"], strict=True))
    images = {case.key: case.rows[0] for case in cases}
    known = [row for row in rows if not row["failed"]]
    gains: dict[str, list[float]] = {name: [] for name in labels}
    for row in known:
        found = io.read_labels(run.path / row["file"])
        codes = mask_codes(cohort.read_mask(images[row["key"]]), found, structures)
        keep_largest(found, list(values.values()))
        after = dice_scores(found, codes, structures)
        for name in labels:
            gains[name].append(after[name] - row[f"dice_{name}"])
    chosen = choose(gains, [row["patient"] for row in known])
    write_json(run.path / FILE, {"largest_piece": chosen})
    kept = [one["label"] for one in chosen if one["kept"]]
    changed = {
        row["key"] for place, row in enumerate(known) if any(gains[name][place] for name in kept)
    }
    out = []
    for row in rows:
        if row["key"] in changed:
            found = io.read_labels(run.path / row["file"])
            codes = mask_codes(cohort.read_mask(images[row["key"]]), found, structures)
            keep_largest(found, [values[name] for name in kept])
            io.write(found, run.path / row["file"])
            row = {**row, **compare(found, codes, structures)}
        out.append(row)
    return out


def choose(gains: Mapping[str, Sequence[float]], patients: Sequence[str]) -> list[Json]:
    """Return, for each structure, what the rule did on validation images and whether it is kept.

    Args:
        gains: structure -> Dice score with the rule minus without, for each image.
        patients: of the images; a patient counts once, with the mean of the images.

    Returns:
        For each structure `label`, `kept`, `gain` (mean over patients), and of how many `patients`
        it was `better` and `worse`.
    """
    from scipy.stats import binomtest

    rows: dict[str, list[int]] = defaultdict(list)
    for row, patient in enumerate(patients):
        rows[patient].append(row)
    out = []
    for label, values in gains.items():
        each = np.array([np.mean([values[row] for row in found]) for found in rows.values()])
        better, worse = int((each > 0).sum()), int((each < 0).sum())
        gain = float(each.mean()) if len(each) else 0.0
        sure = better + worse > 0 and (
            binomtest(better, better + worse, alternative="greater").pvalue <= LEVEL
        )
        out.append(
            {
                "label": label,
                "kept": bool(sure and gain > 0),
                "gain": round(gain, 6),
                "patients": len(each),
                "better": better,
                "worse": worse,
            }
        )
    return out


def told(run: Run) -> list[str]:
    """Return the audit's line for each structure of which only the largest piece is kept."""
    return [
        f"only the largest piece of '{one['label']}' is kept: mean Dice of validation images "
        f"{one['gain']:+.4f}, better in {one['better']} of {one['patients']} patients, worse in "
        f"{one['worse']}"
        for one in read_json(run.path / FILE)["largest_piece"]
        if one["kept"]
    ]
