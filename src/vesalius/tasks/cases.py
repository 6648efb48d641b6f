# SPDX-License-Identifier: Apache-2.0
"""Cases: what one label applies to, as an unordered set of a cohort's rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vesalius.errors import CohortError, UsageError, did_you_mean
from vesalius.tasks.class_order import class_order as class_order
from vesalius.tasks.targets import Target
from vesalius.tasks.truths import read_truths
from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

CASES = ("auto", "patient", "study", "series", "image")
CaseKind = Literal["patient", "study", "series", "image"]
# Where left and right look alike, mirroring is harmless. Elsewhere (heart on the left, liver on
# the right) laterality is part of the answer, or the marker in the image is.
_COLUMNS = (
    "key", "root", "files", "member", "format", "patient", "study", "series", "site", "modality",
    "kind", "plane", "scanner", "shape", "spacing", "affine", "calibrated", "stat_p01", "stat_p99",
    "mask_files", "mask_member", "mask_format", "mask_names", "findings", "description",
)  # fmt: skip
PERSON = ("sex", "age")  # labels by which scores are also given, where the cohort has them


@dataclass(frozen=True, slots=True)
class Case:
    """One case: its rows (sorted by key), its patient and, for classification, its truth.

    The forms of a truth are those of `targets`; they are text for every kind of target.
    """

    key: str
    rows: tuple[Json, ...]
    patient: str
    truth: str = ""

    def value(self, column: str) -> str:
        """Return what its rows share in `column`, several values joined by `+`."""
        values = {row.get(column) for row in self.rows} - {None, ""}
        return "+".join(sorted(str(value) for value in values if value == value))


@dataclass(frozen=True, slots=True)
class Cases:
    """All cases of a task, and what was left out."""

    cases: tuple[Case, ...]
    kind: CaseKind
    audit: tuple[str, ...]
    flawed: Mapping[str, Sequence[str]]  # key of an image -> the errors among its findings
    target: Target | None = None  # of classification

    def subset(self, rows: Mapping[str, str], name: str) -> list[Case]:
        """Return the cases of one subset; training cases come without flawed images.

        Args:
            rows: image key -> subset.
            name: `train`, `val` or `test`.

        Raises:
            CohortError: a case has images in several subsets.
        """
        out = []
        for case in self.cases:
            found = {rows[row["key"]] for row in case.rows if row["key"] in rows}
            if len(found) > 1:
                raise CohortError(
                    f"case {case.key} has images in the subsets {', '.join(sorted(found))}; split "
                    "by the same grouping as the cases, or choose a finer --case"
                )
            if found != {name}:
                continue
            if name == "train":
                sound = tuple(row for row in case.rows if row["key"] not in self.flawed)
                case = Case(case.key, sound, case.patient, case.truth)
            if case.rows:
                out.append(case)
        return out


def classification_cases(
    cohort: Cohort,
    target: str | None,
    kind: str = "auto",
    *,
    target_kind: str = "auto",
    known: Target | None = None,
) -> Cases:
    """Return the labelled cases of a cohort, with their target.

    Args:
        cohort: of any images.
        target: name of a label, or of several separated by commas that each say yes or no to one
            label of a multi-label target; may be None where the cohort has just one.
        kind: what one label applies to. `auto`: the patient where every image of a patient
            bears the same label and some patient has several; else likewise the study, the
            series; else the image.
        target_kind: `auto`, a kind of target, or one with its classes in order
            (`ordinal:low<mid<high`); see `truths.read_truths`.
        known: the target of a run, for cases that it is to answer.

    Raises:
        UsageError: unknown target or case, or a target that does not fit its kind.
        CohortError: fewer than two classes, a class that `known` has not, or a case with
            contradicting labels.
    """
    names = target_names(cohort, target)
    columns = [_column(name) for name in names]
    if kind not in CASES:
        raise UsageError(f"case must be one of {', '.join(CASES)}, got '{kind}'")
    person = [_column(name) for name in PERSON if name in cohort.targets]
    wanted = dict.fromkeys((*_COLUMNS, *columns, *person))
    rows, audit = _usable(_rows(cohort, tuple(wanted)))
    chosen, labelled, lines = read_truths(rows, columns, names, target_kind, known)
    level = _case_kind(labelled) if kind == "auto" else kind
    groups: dict[str, list[tuple[Json, str]]] = defaultdict(list)
    for row, label in labelled:
        groups[_group(row, level)].append((row, label))
    cases = []
    for key, members in sorted(groups.items()):
        labels = {label for _, label in members}
        if len(labels) > 1:
            raise CohortError(
                f"the {level} {key} bears several labels ({', '.join(sorted(labels))}); choose a "
                "finer --case, or correct the labels"
            )
        ordered = tuple(sorted((row for row, _ in members), key=lambda row: row["key"]))
        cases.append(Case(key, ordered, ordered[0]["patient"] or key, labels.pop()))
    audit.insert(0, f"{len(cases)} cases (one label per {level}), {len(labelled)} images")
    return Cases(
        tuple(cases),
        level,  # type: ignore[arg-type]  # checked above
        (*audit, *lines),
        flaws(cohort),
        chosen,
    )


def target_names(cohort: Cohort, target: str | None) -> list[str]:
    """Return the cohort's labels that `target` names, separated by commas; None: its only one.

    Raises:
        UsageError: an unknown label, one that is named twice, or None where there are several.
    """
    names = list(cohort.targets)
    if target is None:
        if len(names) == 1:
            return names
        raise UsageError(
            f"--target must name one label of the cohort: {', '.join(names) or 'it has none'}"
        )
    columns = {_column(name): name for name in names}
    found = []
    for part in target.split(","):
        # A label may itself be called label_0.
        fits = [
            c for c in (_column(part), _column(part.strip().removeprefix("label_"))) if c in columns
        ]
        if not fits:
            raise UsageError(
                f"the cohort has no label '{part.strip()}'; it has: {', '.join(names) or 'none'}."
                f"{did_you_mean(part.strip(), names)}"
            )
        found.append(columns[fits[0]])
    if len(set(found)) < len(found):
        raise UsageError(f"--target must name each label once, got '{target}'")
    return found


def case_groups(cohort: Cohort, cases: Sequence[Case]) -> dict[str, int]:
    """Return case key -> group: cases of one patient, or of nearly equal images, share theirs.

    What is held out must hold whole groups, see `cohorts.grouping`.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    from vesalius.cohorts.grouping import NEEDED, group_rows

    table = cohort.to_arrow(list(NEEDED))
    of = dict(zip(table["key"].to_pylist(), group_rows(table).of.tolist(), strict=True))
    pairs = [(n, of[row["key"]]) for n, case in enumerate(cases) for row in case.rows]
    count = len(cases) + 1 + max(of.values())
    ones = [1] * len(pairs)
    places = ([n for n, _ in pairs], [len(cases) + group for _, group in pairs])
    linked = coo_array((ones, places), shape=(count, count))
    found = connected_components(linked, directed=False)[1]
    return {case.key: int(found[n]) for n, case in enumerate(cases)}


def segmentation_cases(cohort: Cohort) -> Cases:
    """Return the images of a cohort that have a mask, one case each.

    Raises:
        CohortError: there is none.
    """
    rows, audit = _usable(_rows(cohort, _COLUMNS))
    masked = [row for row in rows if row["mask_files"]]
    if not masked:
        raise CohortError(
            f"none of the {len(rows)} images of the cohort has a mask; scan a folder that holds "
            "masks beside the images (see the supported layouts), or train a classifier"
        )
    if len(masked) < len(rows):
        audit.append(f"{len(rows) - len(masked)} images have no mask and are left out")
    cases = [
        Case(row["key"], (row,), row["patient"] or row["key"])
        for row in sorted(masked, key=lambda row: str(row["key"]))
    ]
    audit.insert(0, f"{len(cases)} images with a mask")
    return Cases(tuple(cases), "image", tuple(audit), flaws(cohort))


def _rows(cohort: Cohort, columns: tuple[str, ...]) -> list[Json]:
    rows: list[Json] = cohort.to_arrow(columns=list(columns)).to_pylist()
    return rows


def _usable(rows: list[Json]) -> tuple[list[Json], list[str]]:
    kept = [row for row in rows if (row["kind"] or "image") == "image"]
    left = Counter(row["kind"] for row in rows if (row["kind"] or "image") != "image")
    return kept, [f"{count} x {kind} left out" for kind, count in sorted(left.items())]


def flaws(cohort: Cohort) -> dict[str, list[str]]:
    """Return key of an image -> names of the errors among its findings."""
    findings = cohort.findings()
    errors = findings[findings["severity"] == "error"]
    out: dict[str, list[str]] = defaultdict(list)
    for key, name in zip(errors["key"], errors["name"], strict=True):
        if key and name not in out[str(key)]:
            out[str(key)].append(str(name))
    return dict(out)


def _column(name: str) -> str:
    from vesalius.cohorts.schema import label_column

    return label_column(name)


def _group(row: Json, level: str) -> str:
    return str(row["key"] if level == "image" else (row[level] or row["key"]))


def _case_kind(labelled: list[tuple[Json, str]]) -> CaseKind:
    levels: tuple[CaseKind, ...] = ("patient", "study", "series")
    for level in levels:
        labels: dict[str, set[str]] = defaultdict(set)
        for row, label in labelled:
            labels[_group(row, level)].add(label)
        if len(labels) < len(labelled) and all(len(found) == 1 for found in labels.values()):
            return level
    return "image"
