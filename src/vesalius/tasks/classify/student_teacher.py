# SPDX-License-Identifier: Apache-2.0
"""The teacher's answers to a student's lessons, asked once and kept while it learns."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vesalius.files import write_atomically
from vesalius.tasks.classify.predict import Mixture
from vesalius.tasks.classify.student_lessons import Lessons
from vesalius.types import Array, Progress

_SAVED = 20.0  # seconds of asking between two times that the answers are written
_FEWEST = 2  # lessons: one of cases as they are, one of blended ones


def ask(
    path: Path,
    lessons: Lessons,
    teacher: Mixture,
    *,
    most: int,
    late: Callable[[], bool],
    progress: Progress | None,
) -> Array:
    """Return what the teacher says of the first lessons: `(lessons, batch, ...)` float32.

    The answers are those of the mixture before its calibration, in the form of
    `Target.probabilities`. They are kept at `path`, so that after an interruption asking goes on.

    Args:
        path: of a `.npy` file.
        lessons: of the student.
        teacher: the mixture.
        most: lessons.
        late: says whether asking has taken its time; two lessons are asked about in any case.
        progress: called as `progress(stage, done, total)`.
    """
    said: list[Array] = list(np.load(path)) if path.exists() else []
    saved = time.monotonic()
    while len(said) < most and (len(said) < _FEWEST or not late()):
        table, _ = teacher.answer(lessons.images(len(said)))
        said.append(table.astype(np.float32))
        if progress is not None:
            progress("asking the teacher", len(said), most)
        if time.monotonic() - saved > _SAVED:
            _keep(path, said)
            saved = time.monotonic()
    _keep(path, said)
    return np.stack(said)


def _keep(path: Path, said: list[Array]) -> None:
    table = np.stack(said)
    write_atomically(path, lambda stream: np.save(stream, table))
