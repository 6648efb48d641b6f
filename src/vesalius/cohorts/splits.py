# SPDX-License-Identifier: Apache-2.0
"""Train, validation and test rows that share no patient and no near-duplicate (law 5)."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from vesalius.cohorts.grouping import NEEDED, group_rows
from vesalius.cohorts.schema import LABEL, label_column
from vesalius.cohorts.stratify import Strata, share_out, strata
from vesalius.errors import CohortError, UsageError, did_you_mean
from vesalius.files import read_json, write_json
from vesalius.types import Array, Json, PathLike, Subset

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from vesalius.cohorts.cohort import Cohort

PARTS: tuple[Subset, ...] = ("train", "val", "test")  # what a cohort is shared out to
SUBSETS: tuple[Subset, ...] = (*PARTS, "calibration")  # a run holds some cases back for that
_FORMAT = 1
_LISTED = 12  # classes named in one line of the audit


@dataclass(frozen=True, slots=True)
class Split:
    """Which subset each row belongs to.

    Attributes:
        rows: key to one of `SUBSETS`; every row of the cohort has one.
        audit: what was grouped and why, sizes and labels of each subset, warnings; lines to print.
        settings: the arguments that made it.
    """

    rows: Mapping[str, Subset]
    audit: tuple[str, ...] = ()
    settings: Json = field(default_factory=dict)

    def keys(self, subset: Subset) -> list[str]:
        """Return the sorted keys of one subset."""
        if subset not in SUBSETS:
            raise UsageError(
                f"subset must be one of {', '.join(SUBSETS)}, got {subset!r}."
                f"{did_you_mean(subset, SUBSETS)}"
            )
        return sorted(key for key, name in self.rows.items() if name == subset)

    def digest(self) -> str:
        """Return 16 hex digits that name the assignment, whatever the order of its rows."""
        text = "\n".join(f"{key}\t{name}" for key, name in sorted(self.rows.items()))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def save(self, path: PathLike) -> Path:
        """Write the split as JSON, durably; it holds pseudonymous keys only."""
        return write_json(
            path,
            {
                "format": _FORMAT,
                "digest": self.digest(),
                "settings": self.settings,
                "audit": list(self.audit),
                "rows": dict(sorted(self.rows.items())),
            },
        )

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Read a split; raises `CohortError` for a file that is none, or was edited by hand."""
        try:
            value = read_json(path)
        except (OSError, ValueError) as error:
            raise CohortError(f"{path} cannot be read as a split (JSON): {error}") from error
        rows = value.get("rows") if isinstance(value, dict) else None
        if not isinstance(rows, dict) or not set(rows.values()) <= set(SUBSETS):
            raise CohortError(
                f"{path} is not a split: expected an object with 'rows', each key with one of "
                f"{', '.join(SUBSETS)}"
            )
        split = cls(rows, tuple(value.get("audit", ())), dict(value.get("settings", {})))
        if value.get("digest") not in (None, split.digest()):
            raise CohortError(
                f"{path} was changed after it was written (its digest does not fit its rows); "
                "make it again, or remove the line 'digest' if the change is meant"
            )
        return split


def make_split(
    cohort: Cohort,
    *,
    target: str | Sequence[str] | None = None,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    seed: int = 0,
    by_site: bool = False,
    official: bool = True,
    ungrouped: bool = False,
) -> Split:
    """Share out the rows of a cohort; see `split_table`.

    Args:
        cohort: the table of images.
        target: label (or labels, for several at once) whose values each subset gets its part of.
        fractions: parts of train, val and test; 0 leaves a subset empty.
        seed: breaks ties.
        by_site: the test rows come from sites (scanners, where no site is known) that no other
            row comes from.
        official: keep the split that the data came with.
        ungrouped: let rows of one patient fall on both sides. Scores will be too good.

    Raises:
        UsageError: a wrong argument. CohortError: too few groups, sites or labels.
    """
    asked = [target] if isinstance(target, str) else list(target or ())
    names = [label_column(name).removeprefix(LABEL) for name in asked]
    known = list(cohort.targets)
    for name in names:
        if name not in known:
            raise UsageError(
                f"target {name!r} is not a label of the cohort; labels are "
                f"{', '.join(known) or 'none'}.{did_you_mean(name, known)}"
            )
    columns = [*NEEDED, "split", "site", "scanner", *(LABEL + name for name in names)]
    return split_table(
        cohort.to_arrow(columns),
        targets=names,
        fractions=fractions,
        seed=seed,
        by_site=by_site,
        official=official,
        ungrouped=ungrouped,
    )


def split_table(
    table: pa.Table,
    *,
    targets: Sequence[str] = (),
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    seed: int = 0,
    by_site: bool = False,
    official: bool = True,
    ungrouped: bool = False,
) -> Split:
    """Share out the rows of a table with the columns of `images`.

    Rows of one patient, of one study, of identical and of nearly identical images stay together
    (`grouping`); groups are shared out so that every subset keeps its part of each label
    (`stratify`). The result depends on keys, content and seed, not on the order of rows.

    An official split is kept as it is, even where it leaks (the audit says so): a subset that it
    lacks is carved out of its train rows by groups, and rows that it does not name follow their
    group, else go to train.
    """
    parts = _fractions(fractions)
    table = table.sort_by("key")
    keys = table["key"].to_pylist()
    if not keys:
        raise CohortError("the cohort has no rows to split: scan some images first")
    audit: list[str] = []
    if ungrouped:
        group = np.arange(len(keys))
        audit.append(
            "WARNING: ungrouped on request: images of one patient may be on both sides, and "
            "scores will be too good"
        )
    else:
        grouping = group_rows(table)
        group = grouping.of
        audit.extend(grouping.audit)
    labels = {name: table[LABEL + name].to_pylist() for name in targets}
    kinds = _kinds(labels, len(keys))
    given = [name or "" for name in table["split"].to_pylist()] if official else [""] * len(keys)
    if any(given):
        if by_site:
            raise UsageError(
                "by_site and the official split contradict each other: pass official=False"
            )
        chosen = _complete(given, group, keys, kinds, parts, seed, audit)
    elif by_site:
        chosen = _by_site(table, group, keys, kinds, parts, seed, audit)
    else:
        chosen = _share(np.arange(len(keys)), group, keys, kinds, parts, seed)
    rows = dict(zip(keys, chosen, strict=True))
    audit.extend(_balance(chosen, group, labels))
    settings = {
        "targets": list(targets),
        "fractions": list(fractions),
        "seed": seed,
        "by_site": by_site,
        "official": bool(official and any(given)),
        "ungrouped": ungrouped,
    }
    return Split(rows, tuple(audit), settings)


def _fractions(fractions: Sequence[float]) -> dict[Subset, float]:
    numbers = [float(part) for part in fractions]
    fit = len(numbers) == 3 and all(0 <= part < np.inf for part in numbers)
    if not fit or numbers[0] <= 0 or sum(numbers) > 1 + 1e-6 or sum(numbers) < 1 - 1e-6:
        raise UsageError(
            "fractions must be three numbers (train, val, test) of at least 0 that sum to 1, "
            f"train above 0, for example (0.6, 0.2, 0.2); got {tuple(fractions)}"
        )
    return dict(zip(PARTS, numbers, strict=True))


def _kinds(labels: Mapping[str, Sequence[Any]], n: int) -> list[Strata]:
    per_label = [strata(values, name) for name, values in labels.items()]
    return [tuple(kind for rows in per_label for kind in rows[row]) for row in range(n)]


def _share(
    rows: Array,
    group: Array,
    keys: Sequence[str],
    kinds: Sequence[Strata],
    parts: Mapping[Subset, float],
    seed: int,
) -> list[Subset]:
    """Return the subset of each of `rows`, groups whole."""
    members: dict[int, list[int]] = defaultdict(list)
    for row in rows.tolist():
        members[int(group[row])].append(row)
    wanted: dict[str, float] = {name: part for name, part in parts.items() if part > 0}
    if len(members) < len(wanted):
        raise CohortError(
            f"{len(members)} group(s) of rows that must stay together cannot fill "
            f"{len(wanted)} subsets ({', '.join(wanted)}): add patients, or ask for fewer subsets, "
            "for example fractions=(0.7, 0.3, 0); ungrouped=True splits within a patient"
        )
    # Keys are sorted, so a group's first key names it whatever the order of rows was.
    named = {keys[found[0]]: [kinds[row] for row in found] for found in members.values()}
    chosen = share_out(named, wanted, seed)
    subset_of = {number: chosen[keys[found[0]]] for number, found in members.items()}
    return [subset_of[int(group[row])] for row in rows]  # type: ignore[misc]  # keys of `parts`


def _by_site(
    table: pa.Table,
    group: Array,
    keys: Sequence[str],
    kinds: Sequence[Strata],
    parts: Mapping[Subset, float],
    seed: int,
    audit: list[str],
) -> list[Subset]:
    """Hold whole sites out for test; val is drawn from the other sites by groups."""
    from vesalius.cohorts.similarity import groups

    column = "site" if any(table["site"].to_pylist()) else "scanner"
    sites = [name or "unknown" for name in table[column].to_pylist()]
    if parts["test"] <= 0:
        raise UsageError("by_site holds sites out for test: its fraction must be above 0")
    first: dict[str, int] = {}
    links = [(first.setdefault(site, row), row) for row, site in enumerate(sites)]
    of_group = np.array([np.arange(len(keys)), group], np.int64).T
    joined = groups(len(keys), of_group, np.array(links, np.int64))
    found = len(set(sites))
    if len(np.unique(joined)) < 2:
        raise CohortError(
            f"by_site needs two {column}s or more that share no patient, found {found} in the "
            f"column '{column}'; leave by_site out"
        )
    if "unknown" in first:
        audit.append(f"WARNING: {sites.count('unknown'):,} rows name no {column}; taken as one")
    two: dict[Subset, float] = {"train": 1 - parts["test"], "test": parts["test"]}
    chosen = _share(np.arange(len(keys)), joined, keys, kinds, two, seed)
    held = sorted({site for site, name in zip(sites, chosen, strict=True) if name == "test"})
    audit.append(f"whole {column}s held out for test: {len(held)} of {found}")
    if parts["val"] > 0:
        rest = np.flatnonzero(np.array(chosen) == "train")
        inner: dict[Subset, float] = {"train": parts["train"], "val": parts["val"]}
        for row, name in zip(rest, _share(rest, group, keys, kinds, inner, seed), strict=True):
            chosen[row] = name
    return chosen


def _complete(
    given: Sequence[str],
    group: Array,
    keys: Sequence[str],
    kinds: Sequence[Strata],
    parts: Mapping[Subset, float],
    seed: int,
    audit: list[str],
) -> list[Subset]:
    """Keep the official split, place the rows it leaves out, and carve the subsets it lacks."""
    unknown = sorted({name for name in given if name and name not in SUBSETS})
    if unknown:
        raise CohortError(
            f"the column 'split' holds {unknown}, allowed are {', '.join(SUBSETS)} or nothing"
        )
    sides: dict[int, set[str]] = defaultdict(set)
    for number, name in zip(group.tolist(), given, strict=True):
        if name:
            sides[number].add(name)
    chosen: list[Subset] = []
    for number, name in zip(group.tolist(), given, strict=True):
        order = ("test", "val", "train") if not name else (name,)
        found = [side for side in order if side in sides[number] or side == name]
        chosen.append(found[0] if found else "train")  # type: ignore[arg-type]  # checked above
    counts = Counter(given)
    audit.append(
        "official split kept: "
        + ", ".join(f"{name} {counts[name]:,}" for name in SUBSETS if counts[name])
        + (f"; {counts['']:,} rows without one follow their group" if counts[""] else "")
    )
    leaks = [names for names in sides.values() if len(names) > 1]
    if leaks:
        audit.append(
            f"WARNING: the official split leaks: {len(leaks):,} groups (one patient, or the same "
            "image) are on several sides; official=False makes a clean split"
        )
    lacking: dict[Subset, float] = {
        name: part for name, part in parts.items() if part > 0 and name not in chosen
    }
    if "train" in lacking:
        raise CohortError(
            "the official split names no train rows here; add them, or pass official=False"
        )
    if lacking:
        free = [
            row for row, name in enumerate(chosen) if name == "train" and len(sides[group[row]]) < 2
        ]
        inner: dict[Subset, float] = {"train": parts["train"], **lacking}
        rows = np.array(free, np.int64)
        for row, name in zip(free, _share(rows, group, keys, kinds, inner, seed), strict=True):
            chosen[row] = name
        audit.append(f"carved out of the official train rows, by groups: {', '.join(lacking)}")
    return chosen


def _balance(
    chosen: Sequence[Subset], group: Array, labels: Mapping[str, Sequence[Any]]
) -> list[str]:
    """Return one line a subset, and a warning for every class that one of them lacks."""
    rows = {name: np.flatnonzero([one == name for one in chosen]).tolist() for name in PARTS}
    counts = {
        (name, label): Counter(kind for row in rows[name] for _, kind in kinds[row])
        for label, kinds in ((label, strata(values)) for label, values in labels.items())
        for name in PARTS
    }
    lines, warnings = [], []
    for name in PARTS:
        if not rows[name]:
            continue
        line = (
            f"{name}: {len(rows[name]):,} rows ({len(rows[name]) / len(chosen):.1%}) in "
            f"{len(np.unique(group[rows[name]])):,} groups"
        )
        for label in labels:
            held = counts[name, label]
            most = sorted(held.items(), key=lambda item: str(item[0]))[:_LISTED]
            line += f"; {label}: " + (", ".join(f"{k} {n:,}" for k, n in most) or "none")
            known = {kind for other in PARTS for kind in counts[other, label]}
            lacking = sorted(str(kind) for kind in known - set(held))
            if lacking:
                warnings.append(f"WARNING: {name} has no {label} {', '.join(lacking[:_LISTED])}")
        lines.append(line)
    return lines + warnings
