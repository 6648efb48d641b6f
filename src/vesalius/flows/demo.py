# SPDX-License-Identifier: Apache-2.0
"""`vesalius demo`: the whole job on a simulated cohort, from scan to report, offline."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vesalius.types import PathLike, Progress

_TARGET = "diagnosis"
# Exact steps, not minutes: a slow machine takes longer and still ends with the same models.
_SEGMENT_STEPS = 90


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Where the demo left its work.

    Attributes:
        cohort: the cohort folder.
        classifier, segmenter: the run folders.
        prediction: the DICOM SEG of one new exam.
        check: the page of findings.
        report: the page that leads to all of it.
        seconds: wall time of everything.
    """

    cohort: Path
    classifier: Path
    segmenter: Path
    prediction: Path
    check: Path
    report: Path
    seconds: float


def demo(
    out: PathLike = "demo",
    *,
    patients: int = 60,
    steps: int | None = None,
    say: Callable[[str], None] = lambda _line: None,
    progress: Progress | None = None,
) -> DemoResult:
    """Simulate `patients` patients and do the main job on them, start to end, in `out`.

    Args:
        out: folder for the simulated DICOM files, the cohort, both runs and the report. Work
            that an earlier call finished there is kept.
        patients: how many to simulate, with their defects.
        steps: training steps of the segmenter; default what shows that it learns.
        say: receives the narration, line by line.
        progress: called as `progress(stage, done, total)`.
    """
    from vesalius.cohorts.phantom import new_exam, write_phantom
    from vesalius.flows.check import check
    from vesalius.flows.evaluate import evaluate
    from vesalius.flows.predict import predict
    from vesalius.flows.scan import scan
    from vesalius.flows.train import train
    from vesalius.reporting import write_index

    started = time.perf_counter()
    root = Path(out)
    data, cohort = root / "data", root / "cohort"
    say("These data are SIMULATED: no patient, no scanner, no clinical meaning.")
    say(f"1 simulate {patients} patients (CT, MR, X-ray) with injected defects -> {data}")
    truth = write_phantom(data, patients=patients, seed=0, defects=True)

    say(f"2 vesalius scan {data} --labels {data / 'labels.csv'} --out {cohort}")
    scanned = scan(data, labels=data / "labels.csv", out=cohort, progress=progress)
    for line in scanned.lines():
        say(f"    {line}")

    say(f"3 vesalius check {cohort}")
    checked = check(cohort)
    wanted = {defect.finding for defect in truth.defects}
    say(f"    {checked.errors} errors, {checked.warnings} warnings in {checked.images} images")
    say(f"    kinds of defect planted: {len(wanted)}, found: {len(wanted & set(checked.counts))}")
    for name, count in list(checked.counts.items())[:8]:
        say(f"      {count:4} x {name}")

    say(f"4 vesalius train classify {cohort} --target {_TARGET} --case patient --model frozen")
    classifier = train(
        "classify", cohort, target=_TARGET, case="patient", model="frozen",
        out=root / "classifier", progress=progress,
    )  # fmt: skip
    _evaluated(evaluate(classifier.path, cohort, progress=progress), say)

    number = steps or _SEGMENT_STEPS
    say(f"5 vesalius train segment {cohort} --where \"modality='CT'\" --steps {number}")
    segmenter = train(
        "segment", cohort, where="modality='CT'", steps=number,
        out=root / "segmenter", progress=progress,
    )  # fmt: skip
    _evaluated(evaluate(segmenter.path, cohort, progress=progress), say)

    exam = new_exam(root / "new-exam", seed=patients + 1)
    say(f"6 vesalius predict {segmenter.path} {exam} --out {root / 'prediction'}")
    predicted = predict(segmenter.path, exam, out=root / "prediction", format="dicom-seg")
    for line in predicted.lines():
        say(f"    {line}")

    report = write_index(
        root / "report.html",
        title="Vesalius demo: a simulated cohort",
        notice="All images on these pages are simulated. No number here speaks of patients.",
        pages=[
            ("Findings: what is wrong with the data", checked.report),
            ("Classification of unseen patients", classifier.path / "report.html"),
            ("Segmentation of unseen patients", segmenter.path / "report.html"),
        ],
        previews=predicted.previews,
    )
    seconds = time.perf_counter() - started
    say(f"done in {seconds:.0f} s; everything above was simulated data")
    return DemoResult(
        cohort=cohort,
        classifier=classifier.path,
        segmenter=segmenter.path,
        prediction=predicted.files[0],
        check=checked.report,
        report=report,
        seconds=seconds,
    )


def _evaluated(metrics: dict[str, object], say: Callable[[str], None]) -> None:
    from vesalius.results import Estimate

    scores = json.loads(json.dumps(metrics))["splits"]["test"]["scores"]
    for score in scores:
        if not score["label"]:
            say(f"    unseen patients: {Estimate(**score)}")
