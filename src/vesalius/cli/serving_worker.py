# SPDX-License-Identifier: Apache-2.0
"""What a worker's process of `vesalius serve` runs: the flow of `vesalius predict`, job by job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vesalius.serving.worker import Answered


def main(
    folder: Path,
    targets: Sequence[str],
    stop: Callable[[], bool],
    wait: Callable[[float], object],
) -> None:
    """Do the jobs of a state until told to stop."""
    from vesalius.serving.state import State
    from vesalius.serving.worker import work

    work(State(folder), offline, targets=targets, stop=stop, wait=wait)


def offline(run: Path, exam: Path, out: Path) -> Answered:
    """Answer as `vesalius predict RUN EXAM --out OUT` does."""
    from vesalius.flows.predict import predict
    from vesalius.serving.attributes import LIMITS
    from vesalius.serving.worker import Answered

    found = predict(run, exam, out=out, limits=LIMITS)
    answer = found.to_json()
    for name in ("files", "previews"):  # paths of the worker's own folder
        answer.pop(name)
    return Answered([path for path in found.files if path.suffix == ".dcm"], answer)
