# SPDX-License-Identifier: Apache-2.0
"""`vesalius evaluate`: a run's scores on one subset, with intervals, and its report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vesalius.errors import CohortError, RunError, UsageError
from vesalius.types import Json, PathLike, Progress, Subset

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.tasks.cases import Case, Cases
    from vesalius.tasks.run import Run

SUBSETS = ("train", "val", "test")


def evaluate(
    run: PathLike | Run,
    cohort: PathLike | Cohort,
    *,
    split: Subset = "test",
    progress: Progress | None = None,
) -> Json:
    """Score a run, write `metrics.json`, `predictions.parquet` and the report, return the metrics.

    On the cohort that the run was trained with, the cases of the subset `split` are scored; on
    another cohort, of which the run's split knows no image, all of them, under the name
    `cohort-` and the first digits of its digest. `scored` in the metrics is the name. A case that
    cannot be read counts as a failure, with the worst of every score.

    Args:
        run: a run or its folder.
        cohort: a cohort or its folder.
        split: `train`, `val` or `test`.
        progress: called as `progress(stage, done, total)`.

    Raises:
        UsageError: an unknown subset. RunError: the run is not finished.
        CohortError: no case in the subset, or a label that the run never saw.
    """
    from vesalius.cohorts import Cohort
    from vesalius.flows.seen_images import refuse_seen
    from vesalius.reporting import write_card, write_report
    from vesalius.tasks.run import Run

    if split not in SUBSETS:
        raise UsageError(f"split must be one of {', '.join(SUBSETS)}, got '{split}'")
    loaded = run if isinstance(run, Run) else Run.load(run)
    if not loaded.finished:
        raise RunError(
            f"the run '{loaded.path}' is not finished; resume it with: {loaded.plan['command']}"
        )
    opened = cohort if isinstance(cohort, Cohort) else Cohort.open(cohort)
    where = loaded.plan["cohort"]["where"]
    chosen = opened.filter(where) if where else opened
    known = loaded.subsets()
    name: str = split
    if not any(key in known for key in chosen.to_arrow(columns=["key"])["key"].to_pylist()):
        refuse_seen(loaded, chosen)  # another cohort
        name = f"cohort-{chosen.digest()[:8]}"
    metrics = _score(loaded, chosen, name, progress)
    write_card(loaded.path)
    write_report(loaded.path, chosen, split=name)
    return metrics


def _score(run: Run, cohort: Cohort, split: str, progress: Progress | None) -> Json:
    from vesalius.tasks import cases as of

    if run.task == "segment":
        from vesalius.tasks.segment.folds import read_folds
        from vesalius.tasks.segment.predict import Segmenter
        from vesalius.tasks.segment.scoring import score_cases as score_masks

        masked = of.segmentation_cases(cohort)
        folds = read_folds(run) if split in ("train", "val") else {}
        if folds and split == "train":
            raise UsageError(
                "with folds every training image is scored by the network that did not learn from "
                "it, as are those of validation: --split val"
            )
        out_of_fold = [case for case in masked.cases if case.key in folds]
        cases = out_of_fold or _chosen(run, masked, split)
        segmenter = Segmenter.load(run)
        return score_masks(run, segmenter, cohort, cases, split, folds=folds, progress=progress)
    if run.task == "detect":
        from vesalius.tasks.detect import predict as detection
        from vesalius.tasks.detect import score
        from vesalius.tasks.detect.cases import detection_cases

        cases = _chosen(run, detection_cases(cohort), split)
        detector = detection.Detector.load(run)
        return score.score_cases(run, detector, cohort, cases, split, progress=progress)
    if run.task == "retrieve":
        return _search(run, cohort, split, progress)
    from vesalius.tasks.classify import predict as classification
    from vesalius.tasks.classify.scoring import score_cases
    from vesalius.tasks.targets import Target

    known = Target.from_json(run.decisions["target"])
    found = of.classification_cases(cohort, run.plan["target"], run.decisions["case"], known=known)
    cases = _chosen(run, found, split)
    classifier = classification.Classifier.load(run)
    return score_cases(run, classifier, cohort, cases, split, progress=progress)


def _search(run: Run, cohort: Cohort, split: str, progress: Progress | None) -> Json:
    """Search for a subset's images among all images of the cohort."""
    from vesalius.tasks.retrieve.cases import retrieval_cases
    from vesalius.tasks.retrieve.embedder import Embedder
    from vesalius.tasks.retrieve.scoring import score_cases

    found = retrieval_cases(cohort, ",".join(run.decisions["pairs"]), run.plan["target"])
    queries = _chosen(run, found, split)
    embedder = Embedder.load(run.path)
    return score_cases(run, embedder, cohort, found.cases, queries, split, progress=progress)


def _chosen(run: Run, cases: Cases, split: str) -> list[Case]:
    rows = run.subsets()
    if not any(row["key"] in rows for case in cases.cases for row in case.rows):
        return list(cases.cases)  # another cohort
    chosen = cases.subset(rows, split)
    if not chosen:
        raise CohortError(
            f"the run's split has no case in '{split}'; evaluate another subset, or train with a "
            "--split that has one"
        )
    return chosen
