# SPDX-License-Identifier: Apache-2.0
"""Which images a run was made from, by their voxels: scored again elsewhere, they would flatter it.

A row's key depends on the folder that was scanned; equal voxels do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vesalius.errors import CohortError
from vesalius.files import read_json, write_json

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.cohorts.splits import Split
    from vesalius.tasks.run import Run

FILE = "seen.json"
_DIGITS = 16  # of a hash: enough to tell images apart, and no more


def remember(run: Run, cohort: Cohort, split: Split) -> None:
    """Write the hashes of the run's training, validation and calibration images."""
    found = _hashes(cohort)
    used = {found[key] for key, subset in split.rows.items() if subset != "test" and key in found}
    write_json(run.path / FILE, {"content": sorted(used)})


def refuse_seen(run: Run, cohort: Cohort) -> None:
    """Refuse a cohort that holds images which the run was made from.

    Raises:
        CohortError: it does; says how many.
    """
    again = len(seen_keys(run, cohort))
    if again:
        raise CohortError(
            f"{again} of the cohort's {len(cohort)} images are, voxel for voxel, among those that "
            "the run was made from, and would flatter it; evaluate on the cohort that it was "
            "trained with, or scan a folder without them"
        )


def seen_keys(run: Run, cohort: Cohort) -> set[str]:
    """Return the keys of the cohort's images that the run was made from, voxel for voxel."""
    path = run.path / FILE
    if not path.exists():  # a run of an earlier version
        return set()
    seen = set(read_json(path)["content"])
    return {key for key, value in _hashes(cohort).items() if value in seen}


def _hashes(cohort: Cohort) -> dict[str, str]:
    """Return key -> the first digits of its voxels' hash, of rows that were scanned with pixels."""
    rows = cohort.to_arrow(columns=["key", "content_hash"]).to_pylist()
    return {r["key"]: r["content_hash"][:_DIGITS] for r in rows if r["content_hash"]}
