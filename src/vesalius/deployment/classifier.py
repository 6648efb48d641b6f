# SPDX-License-Identifier: Apache-2.0
"""An exported classifier: answers cases of one view by its file, and its 8-bit form."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from vesalius.deployment.int8 import quantize
from vesalius.deployment.proof import LOSS
from vesalius.errors import DataError, RunError
from vesalius.files import fsync_folder, fsync_tree, read_json, write_json
from vesalius.networks.engine import EngineNetwork
from vesalius.normalization import Normalizer
from vesalius.tasks.views import make_views
from vesalius.types import Array, Json, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.tasks.cases import Case

PATCHES = 256  # views that calibrate int8, at most


class ExportedClassifier:
    """Answers cases of one image with one view, as the run does where nothing is said of them."""

    def __init__(self, path: Path) -> None:
        """Open what `export_classifier` wrote.

        Args:
            path: of the `.onnx` or `.xml`; the JSON file lies beside it.

        Raises:
            RunError: a file cannot be opened.
        """
        try:
            self.record: Json = read_json(path.with_name(path.name + ".json"))
        except (OSError, ValueError) as error:
            raise RunError(f"'{path}' lacks a readable {path.name}.json; export again") from error
        self.normalizer = Normalizer.from_json(self.record["normalizer"])
        self.network = EngineNetwork(path, half=False)

    def views(self, cohort: Cohort, case: Case) -> Array | None:
        """Return the view `(1, C, ...)` float32 of a case; None where it cannot be read.

        Raises:
            RunError: the case has several images or views, which no single file answers together.
        """
        try:
            found = [
                make_views(cohort.read(row), self.record, self.normalizer) for row in case.rows
            ]
        except DataError:  # counted as a failure where the run was scored
            return None
        if len(found) != 1 or len(found[0]) != 1:
            raise RunError(
                "an exported classifier answers cases of one picture each, and these have several "
                "images or slices: use the run"
            )
        return np.asarray(found[0], np.float32)

    def answer(self, cohort: Cohort, case: Case) -> Array | None:
        """Return the answer `(classes,)` to a case; None where it cannot be read."""
        views = self.views(cohort, case)
        return None if views is None else self.network(torch.from_numpy(views)).numpy()[0]


def shrink_classifier(
    path: Path,
    cohort: Cohort,
    training: Sequence[Case],
    validation: Sequence[Case],
    score: Callable[[Array, Sequence[Case]], float],
    progress: Progress | None = None,
) -> Json:
    """Replace an exported classifier by its 8-bit form, where its score holds; return the scores.

    Args:
        path: of the export.
        cohort: of the cases.
        training: cases whose views calibrate, at most `PATCHES`.
        validation: cases that are scored with 32 and with 8 bits.
        score: of answers `(n, classes)` to cases; more is better.
        progress: called as `progress(stage, done, total)`.

    Raises:
        RunError: the score falls by more than `LOSS`; the export stays as it was.
        MissingDependency: a library of the engine is absent.
    """
    exact = ExportedClassifier(path)
    chosen = np.random.default_rng(0).permutation(len(training))[:PATCHES]
    held = [exact.views(cohort, training[place]) for place in chosen]
    patches = [views for views in held if views is not None]
    if not patches:
        raise RunError("no training image can be read to calibrate 8-bit integers")
    with tempfile.TemporaryDirectory(prefix=".int8.", dir=path.parent) as folder:
        for part in sorted(path.parent.glob(f"{path.stem}.*")):
            shutil.copyfile(part, Path(folder) / part.name)
        small = Path(folder) / path.name
        quantize(small, patches, given="views")
        before, after = _scores(
            exact, ExportedClassifier(small), cohort, validation, score, progress
        )
        if not before - after <= LOSS:
            raise RunError(
                f"with 8-bit integers the score of {len(validation)} validation cases falls from "
                f"{before:.4f} to {after:.4f}, allowed are {LOSS:g}"
            )
        record = {"views": len(patches), "cases": len(validation), "fp32": before, "int8": after}
        write_json(small.with_name(small.name + ".json"), {**exact.record, "int8": record})
        fsync_tree(folder)
        for part in sorted(Path(folder).iterdir()):
            part.replace(path.parent / part.name)
    fsync_folder(path.parent)
    return record


def _scores(
    exact: ExportedClassifier,
    small: ExportedClassifier,
    cohort: Cohort,
    cases: Sequence[Case],
    score: Callable[[Array, Sequence[Case]], float],
    progress: Progress | None,
) -> tuple[float, float]:
    """Return the scores with 32 and with 8 bits, of the cases that can be read."""
    tables: tuple[list[Array], list[Array]] = ([], [])
    read = []
    for done, case in enumerate(cases, 1):
        views = exact.views(cohort, case)
        if views is not None:
            read.append(case)
            for table, one in zip(tables, (exact, small), strict=True):
                table.append(one.network(torch.from_numpy(views)).numpy()[0])
        if progress is not None:
            progress("scoring int8", done, len(cases))
    if not read:
        raise RunError("no validation image of the run can be read; run `vesalius check`")
    return score(np.stack(tables[0]), read), score(np.stack(tables[1]), read)
