# SPDX-License-Identifier: Apache-2.0
"""What a worker's process of `vesalius serve` runs: the flow of `vesalius predict`, job by job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vesalius.serving.worker import Answered
    from vesalius.types import Json

_KEPT_MODELS = 2  # between studies, in each worker


def main(
    folder: Path,
    targets: Sequence[str],
    stop: Callable[[], bool],
    wait: Callable[[float], object],
) -> None:
    """Do the jobs of a state until told to stop."""
    from vesalius.flows.predicting.loaded import keep_models
    from vesalius.serving import golden_watch, memory, results, shadow
    from vesalius.serving.queue import Job
    from vesalius.serving.state import State
    from vesalius.serving.worker import lay_out, once, stated_modality, work

    def golden(state: State) -> bool:
        return once(
            state, golden_watch.KIND, lambda job, own: golden_watch.do(state, job, plainly, own)
        )

    def look_on(state: State) -> bool:
        def do(job: Job, own: Path) -> Json:
            def show(exam: Path) -> None:
                lay_out(state, job.subject["inputs"], exam)

            answer = partial(plainly, modality=stated_modality(state, job))
            return shadow.do(state, job, answer, show, own)

        return once(state, shadow.KIND, do)

    state = State(folder)
    keep_models(_KEPT_MODELS)
    budget = memory.chosen(state)
    if budget is not None:
        memory.bound(budget)
    predict = partial(offline, wanted=results.chosen(state), budget=budget)
    work(state, predict, targets=targets, stop=stop, wait=wait, before=[golden], after=[look_on])


def offline(
    run: Path,
    exam: Path,
    out: Path,
    *,
    modality: str = "",
    wanted: Sequence[str] = ("seg", "sr"),
    budget: int | None = None,
) -> Answered:
    """Answer as `vesalius predict RUN EXAM --out OUT --format …` does.

    Args:
        run: folder of the run.
        exam: folder of the study's images.
        out: folder for the results.
        modality: of images that do not state theirs.
        wanted: what is made, of `serving.results.KINDS`.
        budget: bytes that this process may take; None for no bound.
    """
    from vesalius.flows.predict import predict
    from vesalius.io.formats import is_dicom_file
    from vesalius.serving import memory, results
    from vesalius.serving.attributes import LIMITS
    from vesalius.serving.runs import ServedRun
    from vesalius.serving.worker import Answered

    dicom = all(is_dicom_file(path) for path in exam.iterdir())
    task = ServedRun.load(run).task
    form = results.formats(task, wanted, dicom=dicom)
    sums = budget // 2 if budget and task == "segment" else None
    with memory.within(budget):
        found = predict(
            run, exam, out=out, format=form, modality=modality, limits=LIMITS, memory=sums,
        )  # fmt: skip
    answer = found.to_json()
    for name in ("files", "previews"):  # paths of the worker's own folder
        answer.pop(name)
    objects = [path for path in found.files if path.suffix == ".dcm"]
    return Answered(objects, answer, results.to_keep(found.files))


def plainly(run: Path, exam: Path, out: Path, *, modality: str = "") -> None:
    """Answer with `prediction.json` and, of a segmenter, NIfTI label maps: to be compared."""
    from vesalius.flows.predict import predict
    from vesalius.serving.attributes import LIMITS
    from vesalius.serving.runs import ServedRun

    segments = ServedRun.load(run).task == "segment"
    form = "nifti" if segments else "json"
    predict(run, exam, out=out, format=form, modality=modality, limits=LIMITS)
