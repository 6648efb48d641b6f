# SPDX-License-Identifier: Apache-2.0
"""From what is asked to the plan of a run: its cases and split, the fingerprint, the decisions.

The one place where a plan comes from, for every task.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import UsageError
from vesalius.flows.planning.asked import PAIRS, Asked
from vesalius.flows.planning.flaws import flawed_images
from vesalius.flows.planning.origin import check_origin
from vesalius.types import Json, PathLike

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.cohorts.splits import Split
    from vesalius.tasks.cases import Case, Cases
    from vesalius.tasks.run import Run


@dataclass(frozen=True, slots=True)
class Data:
    """What a run is made from.

    Attributes:
        cohort: the rows that were asked for.
        cases: of the cohort.
        split: of its rows; of a classifier with the cases held back for calibration.
        request: what was asked, as it is compared with that of an earlier run.
        encoder: what a plan says of the user's encoder file (classify), see `describe_encoder`.
        folds: case key -> fold (segment); empty where one network is trained.
        origin: the run to begin with.
    """

    cohort: Cohort
    cases: Cases
    split: Split
    request: Json
    encoder: Json | None
    folds: dict[str, int] = field(default_factory=dict)
    origin: Run | None = None

    def learned(self) -> list[Case]:
        """Return the cases that training sees: with folds, those of validation too."""
        from vesalius.tasks.segment.folds import learned

        return learned(self.cases, self.split.rows, self.request["folds"])

    def subset(self, name: str) -> list[Case]:
        """Return the cases of one subset."""
        return self.cases.subset(self.split.rows, name)


def gather(asked: Asked, cohort: PathLike | Cohort) -> Data:
    """Open the cohort, find its cases and split them.

    Raises:
        UsageError: a wrong argument.
        CohortError: the cohort has no label, mask or box, or too few cases.
    """
    from vesalius.cohorts import Cohort
    from vesalius.tasks.run import Run

    asked.check()
    origin = Run.load(asked.start) if asked.start is not None else None
    opened = cohort if isinstance(cohort, Cohort) else Cohort.open(cohort)
    chosen = opened.filter(asked.where) if asked.where else opened
    cases = _cases(asked, chosen)
    target = _target(asked, chosen)
    split = _split(asked, chosen, target)
    encoder = None
    if asked.task == "classify":
        split = _held_back(split, chosen, cases, asked.seed)
        if asked.encoder is not None:
            from vesalius.tasks.classify.plan import describe_encoder

            encoder = describe_encoder(asked.encoder)
    folds = _folds(asked, chosen, cases, split) if asked.folds > 1 else {}
    if origin is not None:
        check_origin(origin, asked.task, chosen, split, folds)
    request: Json = {
        "task": asked.task,
        "target": target,
        "target_kind": asked.target_kind,
        "case": asked.case,
        "seed": asked.seed,
        "model": asked.model,
        "folds": asked.folds,
        "from": "" if origin is None else origin.id,
        "encoder": "" if encoder is None else encoder["digest"],
        "operating": asked.operating,
        "budget": asked.budget,
        "normalize": asked.normalize,
        "where": asked.where or "",
        "cohort": chosen.digest(),
        "split": split.digest(),
        "ungrouped_split": asked.ungrouped_split,
        "labels": asked.labels,
        "ignore": asked.ignore,
        "memory": asked.memory,
        "plan": "",  # the id of the one that was handed in
    }
    if asked.task == "retrieve":
        request["pairs"] = asked.pairs or PAIRS
    return Data(chosen, cases, split, request, encoder, folds, origin)


def draft(data: Data) -> Json:
    """Return the plan of a run: fingerprint and decisions from training rows alone.

    Raises:
        UsageError: an unknown model or method. CohortError: too few training cases.
    """
    request, flawed = data.request, flawed_images(data.cases, data.split.rows, data.request)
    found, decisions, remarks = _decide(data)
    return {
        "task": request["task"],
        "target": request["target"],
        "seed": request["seed"],
        "request": request,
        "fingerprint": found,
        "decisions": decisions,
        "estimates": {"cache_bytes": cache_bytes(request["task"], found, decisions)},
        "cohort": {
            "digest": request["cohort"],
            "version": data.cohort.version,
            "license": data.cohort.license,
            "where": data.cohort.where,
        },
        "split_digest": request["split"],
        "audit": [*data.cases.audit, *flawed, *remarks, *data.split.audit],
    }


def cache_bytes(task: str, found: Json, decisions: Json) -> int:
    """Return what the prepared images take on disk while training, about."""
    if task == "segment":
        from vesalius.tasks.segment import plan as segmentation

        return segmentation.cache_bytes(found, decisions)
    if task == "detect":
        from vesalius.tasks.detect import plan as detection

        return detection.cache_bytes(found, decisions)
    if task == "retrieve":
        from vesalius.tasks.retrieve import plan as retrieval

        return retrieval.cache_bytes(found, decisions)
    from vesalius.tasks.classify import plan as classification

    return classification.cache_bytes(found, decisions)


def _cases(asked: Asked, cohort: Cohort) -> Cases:
    from vesalius.tasks import cases

    if asked.task == "segment":
        return cases.segmentation_cases(cohort)
    if asked.task == "detect":
        from vesalius.tasks.detect.cases import detection_cases

        return detection_cases(cohort)
    if asked.task == "retrieve":
        from vesalius.tasks.retrieve.cases import retrieval_cases

        return retrieval_cases(cohort, asked.pairs or PAIRS, asked.target)
    return cases.classification_cases(
        cohort, asked.target, asked.case, target_kind=asked.target_kind
    )


def _target(asked: Asked, cohort: Cohort) -> str | None:
    """Return what a plan states as its target: the labels, joined by commas; None for none."""
    if asked.task == "classify":
        return asked.target or cohort.targets[0]
    if asked.task == "retrieve":
        from vesalius.tasks.retrieve.cases import wanted_labels

        return ",".join(wanted_labels(cohort, asked.pairs or PAIRS, asked.target)) or None
    return None


def _split(asked: Asked, cohort: Cohort, target: str | None) -> Split:
    from vesalius.cohorts.splits import Split, make_split

    if asked.split is not None:
        return Split.load(Path(asked.split))
    names = target.split(",") if target else None
    return make_split(cohort, target=names, seed=asked.seed, ungrouped=asked.ungrouped_split)


def _held_back(split: Split, cohort: Cohort, cases: Cases, seed: int) -> Split:
    """Return the split with the cases that are held back for calibration."""
    from vesalius.tasks.cases import case_groups
    from vesalius.tasks.classify.held_back import hold_back

    rows, lines = hold_back(split.rows, cases, case_groups(cohort, cases.cases), seed)
    return replace(split, rows=rows, audit=(*split.audit, *lines))


def _folds(asked: Asked, cohort: Cohort, cases: Cases, split: Split) -> dict[str, int]:
    """Return the fold of each case that training sees."""
    from vesalius.tasks.cases import case_groups
    from vesalius.tasks.segment.folds import assign_folds, learned

    found = learned(cases, split.rows, asked.folds)
    groups = {case.key: place for place, case in enumerate(found)}
    if not asked.ungrouped_split:
        groups = case_groups(cohort, found)
    return assign_folds(found, groups, asked.folds, asked.seed)


def _decide(data: Data) -> tuple[Json, Json, list[str]]:
    """Return fingerprint, decisions, and what the audit is to say of them."""
    request, train = data.request, data.learned()
    asked = {name: request[name] for name in ("model", "budget", "normalize")}
    if request["task"] == "segment":
        from vesalius.tasks.segment import plan as segmentation
        from vesalius.tasks.segment.remarks import remarks as about_data

        found = segmentation.fingerprint(data.cohort, train)
        asked |= {name: request[name] for name in ("labels", "ignore", "memory")}
        decisions = segmentation.decide(found, **asked)
        remarks: list[str] = []
        if data.origin is not None:
            from vesalius.tasks.segment.warm_start import take_over

            kept = {name: request[name] for name in ("model", "normalize")}
            decisions, remarks = take_over(decisions, data.origin, **kept)
        decisions |= {"folds": request["folds"], "start": request["from"]}
        if data.folds:
            decisions["locator"] = None  # which no image could be asked about that it did not see
            remarks = [*remarks, _on_folds(data)]
        return found, decisions, [*about_data(found, decisions), *remarks]
    if request["task"] == "detect":
        from vesalius.tasks.detect import plan as detection

        found = detection.fingerprint(train)
        decisions = detection.decide(found, **asked)
        return found, decisions, _unmarked(found, decisions)
    if request["task"] == "retrieve":
        from vesalius.tasks.retrieve import plan as retrieval

        found = retrieval.fingerprint(train)
        labels = request["target"].split(",") if request["target"] else []
        kinds = request["pairs"].split(",")
        return found, retrieval.decide(found, kinds=kinds, labels=labels, **asked), []
    from vesalius.tasks.balance import balance
    from vesalius.tasks.classify import plan as classification

    if data.cases.target is None:
        raise UsageError("classify needs a target")
    truths = [case.truth for case in train]
    found = classification.fingerprint(train, data.cases.target)
    target = data.cases.target.fitted(truths)
    decisions = classification.decide(
        found, target, truths, case=data.cases.kind, encoder=data.encoder, **asked
    )
    decisions["start"] = request["from"]
    decisions["operating"] = _operating(request["operating"], target.kind)
    found["balance"] = balance(target, truths)
    return found, decisions, []


def _on_folds(data: Data) -> str:
    """Return what the audit says of the folds."""
    sizes = [list(data.folds.values()).count(n) for n in range(data.request["folds"])]
    return (
        f"{len(sizes)} folds of {', '.join(map(str, sizes))} images, groups whole: training and "
        "validation images alike. Each network learns from all folds but its own; scores of 'val' "
        "are out of fold, the plan and the normalizer come from all of them"
    )


def _operating(asked: str, kind: str) -> Json:
    from vesalius.tasks.classify.thresholds import read_request

    if asked and kind != "binary":
        raise UsageError(f"an operating point belongs to a binary target, and this one is {kind}")
    return read_request(asked) if asked else {}


def _unmarked(found: Json, decisions: Json) -> list[str]:
    """Return how many images are taken as not annotated for a class that nearly all show."""
    return [
        f"{found['images'] - found['classes'][name]['images']} training images without any "
        f"'{name}' are taken as not annotated for it: nearly all others show several"
        for name in decisions["always"]
        if found["classes"][name]["images"] < found["images"]
    ]
