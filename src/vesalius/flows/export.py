# SPDX-License-Identifier: Apache-2.0
"""`vesalius export`: a run for production, computed by ONNX Runtime or OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import RunError, UsageError, did_you_mean
from vesalius.types import PathLike, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.tasks.run import Run

ENGINES = ("onnx", "openvino")


def export(
    run: PathLike | Run,
    *,
    out: PathLike,
    to: str = "onnx",
    int8: bool = False,
    cohort: PathLike | Cohort | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a run for an engine, checked to give the run's answers, and return where it is.

    A segmenter becomes a folder that `vesalius predict` takes in place of the run; it holds no
    data of patients. A classifier becomes one file, with a JSON file beside it.

    Args:
        run: a finished run, or its folder.
        out: for a segmenter a folder that is not there or empty; for a classifier a file that ends
            in `.onnx`, or in `.xml` for OpenVINO.
        to: `onnx` (ONNX Runtime) or `openvino`.
        int8: compute in 8-bit integers, where the Dice score holds (a segmenter); needs `cohort`.
        cohort: that a segmenter was trained on, or its folder. The label maps of some validation
            images are compared with the run's; int8 is calibrated on training images, and scored on
            validation images.
        progress: called as `progress(stage, done, total)`.

    Raises:
        UsageError: an argument is wrong, or a classifier's member cannot be exported.
        CohortError: the cohort is another one.
        RunError: the run is not finished, of a detector, or its export would not give its answers;
            int8 would cost more than 0.005 of the mean Dice score. Nothing is written then.
        MissingDependency: a library of the engine is absent.
    """
    from vesalius.tasks.run import Run

    if to not in ENGINES:
        raise UsageError(
            f"to must be one of {', '.join(ENGINES)}, got '{to}'.{did_you_mean(to, ENGINES)}"
        )
    loaded = run if isinstance(run, Run) else Run.load(run)
    if not loaded.finished:
        raise RunError(f"the run '{loaded.path}' is not finished; finish its training first")
    if loaded.task == "segment":
        return _segmenter(loaded, Path(out), to, int8, cohort, progress)
    if int8 or cohort is not None:
        raise UsageError("int8 and a cohort belong to a segmenter; leave them out")
    from vesalius.deployment.onnx import export_classifier
    from vesalius.networks.engine import SUFFIXES

    path = Path(out)
    if path.suffix != SUFFIXES[to]:
        raise UsageError(
            f"out must end in {SUFFIXES[to]} for a classifier to {to}, got '{path.name}'"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    return export_classifier(loaded, path)


def _segmenter(
    run: Run,
    folder: Path,
    to: str,
    int8: bool,
    cohort: PathLike | Cohort | None,
    progress: Progress | None,
) -> Path:
    from vesalius.cohorts import Cohort
    from vesalius.deployment.samples import Samples
    from vesalius.deployment.segmenter import export_segmenter

    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UsageError(
            f"out must be a new or an empty folder for a segmenter, and '{folder}' is none; choose "
            "another, or remove it"
        )
    if int8 and cohort is None:
        raise UsageError(
            "int8 is calibrated and scored on images: give the cohort that the run was trained on"
        )
    samples = None
    if cohort is not None:
        opened = cohort if isinstance(cohort, Cohort) else Cohort.open(cohort)
        samples = Samples(run, opened)
    return export_segmenter(run, folder, to=to, int8=int8, samples=samples, progress=progress)
