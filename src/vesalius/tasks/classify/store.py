# SPDX-License-Identifier: Apache-2.0
"""The prepared views of all images of a run, in one memory-mapped file while it trains."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vesalius.errors import BudgetError, CohortError, DataError
from vesalius.files import fsync_file, read_json, write_json
from vesalius.normalization import Normalizer
from vesalius.tasks.cases import Case
from vesalius.tasks.classify.batch import Image, fact_codes
from vesalius.tasks.classify.clock import Clock
from vesalius.tasks.views import make_views
from vesalius.types import Array, Json, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

_TELLING = (2.0, 8)  # seconds, and images, after which the pace is known


@dataclass(frozen=True, slots=True)
class Store:
    """Views by image.

    Attributes:
        array: `(views, C, ...)` float16, on disk.
        places: image key -> first view, number of views.
        failures: image key -> why it could not be prepared.
        facts: image key -> codes of what it is.
    """

    array: Array
    places: dict[str, tuple[int, int]]
    failures: dict[str, str]
    facts: dict[str, tuple[int, ...]]

    def image(self, key: str) -> Image:
        """Return one image."""
        start, count = self.places[key]
        return Image(np.asarray(self.array[start : start + count]), self.facts[key])

    def images(self, case: Case) -> list[Image]:
        """Return the images of a case that could be prepared."""
        return [self.image(row["key"]) for row in case.rows if row["key"] in self.places]

    def served(self, cases: Sequence[Case]) -> list[Case]:
        """Return the cases with an image at least."""
        return [c for c in cases if any(row["key"] in self.places for row in c.rows)]

    def lost(self, case: Case) -> str:
        """Return which images of a case could not be prepared, and why."""
        keys = [row["key"] for row in case.rows]
        return "; ".join(f"image {k}: {self.failures[k]}" for k in keys if k in self.failures)


def prepare(
    folder: Path,
    cohort: Cohort,
    cases: Sequence[Case],
    decisions: Json,
    normalizer: Normalizer,
    clock: Clock,
    progress: Progress | None,
) -> Store:
    """Write the views of every image below `folder`, one image in memory at a time.

    Raises:
        CohortError: no image can be used.
        BudgetError: the first images show that all of them do not fit into the minutes.
    """
    index = folder / "views.json"
    rows = [row for case in cases for row in case.rows]
    if index.exists():
        held = read_json(index)
        shape, places = held["shape"], {k: (a, n) for k, (a, n) in held["places"].items()}
        failures = held["failures"]
    else:
        folder.mkdir(parents=True, exist_ok=True)
        places, failures, shape = {}, {}, []
        total, begun = 0, time.monotonic()
        with (folder / "views.f16").open("wb") as stream:
            for done, row in enumerate(rows, 1):
                _refuse_late(clock, time.monotonic() - begun, done - 1, len(rows))
                try:
                    views = make_views(cohort.read(row), decisions, normalizer)
                except DataError as error:
                    failures[row["key"]] = str(getattr(error, "reason", error))
                    continue
                stream.write(np.ascontiguousarray(views).tobytes())
                places[row["key"]] = (total, len(views))
                total += len(views)
                shape = [total, *views.shape[1:]]
                if progress is not None:
                    progress("preparing images", done, len(rows))
        if not places:
            raise CohortError(
                f"none of the {len(rows)} images can be used; the first says: "
                f"{next(iter(failures.values()))}"
            )
        fsync_file(folder / "views.f16")
        write_json(index, {"shape": shape, "places": places, "failures": failures})
    array = np.memmap(folder / "views.f16", np.float16, "r", shape=tuple(shape))
    facts = {row["key"]: fact_codes(row, decisions["facts"]) for row in rows}
    return Store(array, places, failures, facts)


def _refuse_late(clock: Clock, spent: float, done: int, count: int) -> None:
    """Raise as soon as the images seen so far tell that all do not fit into the minutes."""
    if clock.minutes is None or spent < _TELLING[0] or not _TELLING[1] <= done < count / 2:
        return
    needed = spent / done * (count - done)
    if needed > clock.left:
        raise BudgetError(
            f"preparing the {count} images takes about {needed:.0f} s more, and {clock.left:.0f} s "
            f"are left; give at least {clock.minutes + (needed - clock.left) / 60 + 0.5:.1f} "
            "minutes, or choose fewer rows with --where"
        )
