# SPDX-License-Identifier: Apache-2.0
"""Models that a process keeps between exams: the last few runs, each while its folder is unchanged.

Loading weights takes longer than many a small exam. A model in evaluation mode is not changed by
answering, so the next exam gets the answer that a fresh one would give. By default nothing is
kept; a process that answers many exams calls `keep_models`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from vesalius.tasks.run import Run

Model = TypeVar("Model")
_Stamp = tuple[tuple[str, int, int], ...]


class Loaded:
    """Keeps the models used last, at most `most`; not to be shared by threads."""

    def __init__(self, most: int = 0):
        self.most = most
        self._held: OrderedDict[str, tuple[_Stamp, Any]] = OrderedDict()

    def get(self, run: Run, load: Callable[[Run], Model]) -> Model:
        """Return the run's model: the kept one, or what `load` returns, which is kept then."""
        key, stamp = str(run.path.resolve()), _stamp(run.path)
        held = self._held.pop(key, None)
        model: Model = held[1] if held is not None and held[0] == stamp else load(run)
        self._held[key] = (stamp, model)
        while len(self._held) > self.most:
            self._held.popitem(last=False)
        return model


_PROCESS = Loaded()


def keep_models(most: int) -> None:
    """Have this process keep the models of the runs used last; 0: none."""
    _PROCESS.most = most


def model_of(run: Run, load: Callable[[Run], Model]) -> Model:
    """Return the model of a run, loaded by `load` unless this process keeps it."""
    return _PROCESS.get(run, load)


def _stamp(folder: Path) -> _Stamp:
    """Return name, time and size of a run's files: another stamp where one of them was replaced."""
    files = [(path, path.stat()) for path in folder.iterdir() if path.is_file()]
    return tuple(sorted((path.name, told.st_mtime_ns, told.st_size) for path, told in files))
