# SPDX-License-Identifier: Apache-2.0
"""What training reads again and again: frozen features of every image, and views for a twin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vesalius.errors import CohortError, DataError
from vesalius.files import fsync_file, read_json, write_atomically, write_json
from vesalius.normalization import Normalizer
from vesalius.tasks.ahead import ahead
from vesalius.tasks.cases import Case
from vesalius.tasks.frozen import FrozenEncoder
from vesalius.tasks.views import make_views
from vesalius.types import Array, Json, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Views:
    """The prepared views of one image, `(n, C, size, size)` float16."""

    views: Array


@dataclass(frozen=True, slots=True)
class Prepared:
    """Images that could be prepared.

    Attributes:
        cases: of these images.
        features: `(n, features)` float32 of the frozen encoder.
        failures: key of any other image -> why.
        array: `(views, C, size, size)` float16 on disk, of all images one after the other.
        starts: `(n + 1,)`: where in `array` the views of each image begin.
    """

    cases: tuple[Case, ...]
    features: Array
    failures: dict[str, str]
    array: Array
    starts: Array

    def image(self, place: int) -> Views:
        """Return the views of one image."""
        return Views(np.asarray(self.array[self.starts[place] : self.starts[place + 1]]))


def prepare(
    folder: Path,
    cohort: Cohort,
    cases: Sequence[Case],
    decisions: Json,
    normalizer: Normalizer,
    encoder: FrozenEncoder,
    progress: Progress | None,
) -> Prepared:
    """Read each image once, some at a time; what lies below `folder` from before is taken.

    Raises:
        CohortError: no image can be used.
    """
    index = folder / "images.json"
    if not index.exists():
        _write(folder, cohort, cases, decisions, normalizer, encoder, progress)
    held = read_json(index)
    by_key = {case.key: case for case in cases}
    array = np.memmap(folder / "views.f16", np.float16, "r", shape=tuple(held["shape"]))
    features = np.load(folder / "features.npy")
    kept = tuple(by_key[key] for key in held["keys"])
    return Prepared(kept, features, held["failures"], array, np.array(held["starts"]))


def _write(
    folder: Path,
    cohort: Cohort,
    cases: Sequence[Case],
    decisions: Json,
    normalizer: Normalizer,
    encoder: FrozenEncoder,
    progress: Progress | None,
) -> None:
    def read(case: Case) -> tuple[Case, Views | None, str]:
        try:
            views = make_views(cohort.read(case.rows[0]), decisions, normalizer)
        except DataError as error:
            return case, None, str(error)
        return case, Views(views), ""

    folder.mkdir(parents=True, exist_ok=True)
    keys: list[str] = []
    starts, shape = [0], [0]
    failures: dict[str, str] = {}
    features = []
    taken = ahead(read, cases)
    done = 0
    with (folder / "views.f16").open("wb") as stream:
        while batch := list(islice(taken, _AT_ONCE)):
            done += len(batch)
            good = [(case, views) for case, views, _ in batch if views is not None]
            failures |= {case.key: why for case, views, why in batch if views is None}
            if good:
                features.append(encoder.images([views for _, views in good]).numpy())
            for case, views in good:
                stream.write(np.ascontiguousarray(views.views).tobytes())
                keys.append(case.key)
                starts.append(starts[-1] + len(views.views))
                shape = [starts[-1], *views.views.shape[1:]]
            if progress is not None:
                progress("preparing images", done, len(cases))
    if not keys:
        raise CohortError(
            f"none of the {len(cases)} images can be used; the first says: "
            f"{next(iter(failures.values()))}"
        )
    fsync_file(folder / "views.f16")
    table = np.concatenate(features)
    write_atomically(folder / "features.npy", lambda out: np.save(out, table))
    write_json(
        folder / "images.json",
        {"keys": keys, "starts": starts, "shape": shape, "failures": failures},
    )
