# SPDX-License-Identifier: Apache-2.0
"""`vesalius export`: a run as one file that other software computes with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import RunError, UsageError
from vesalius.types import PathLike

if TYPE_CHECKING:
    from vesalius.tasks.run import Run


def export(run: PathLike | Run, *, out: PathLike) -> Path:
    """Write a classifier's run as ONNX, with a JSON file beside it, and return the path.

    Args:
        run: a finished run, or its folder.
        out: the file, ending in `.onnx`.

    Raises:
        UsageError: another suffix, or a member that cannot be exported.
        RunError: the run is no finished classifier, or the file does not give its answers.
        MissingDependency: onnx, onnxscript or onnxruntime is absent.
    """
    from vesalius.deployment.onnx import export_classifier
    from vesalius.tasks.run import Run

    path = Path(out)
    if path.suffix.lower() != ".onnx":
        raise UsageError(f"out must end in .onnx, got '{path.name}'")
    loaded = run if isinstance(run, Run) else Run.load(run)
    if not loaded.finished:
        raise RunError(f"the run '{loaded.path}' is not finished; finish its training first")
    path.parent.mkdir(parents=True, exist_ok=True)
    return export_classifier(loaded, path)
