# SPDX-License-Identifier: Apache-2.0
"""`vesalius plan`: what training would do, how long and with how much memory, before it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.flows.planning.edits import member_name
from vesalius.types import Json, PathLike, Task

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

FORMAT = "plan 1"  # a run's own plan.json has a number
_LONGEST = 100  # characters of a value that a line shows


@dataclass(frozen=True, slots=True)
class Plan:
    """Every decision of a run that has not begun, with what it will take.

    `decisions` may be edited in place; `vesalius.train(…, plan=plan)` takes them as they stand.

    Attributes:
        record: what `plan.json` holds.
    """

    record: Json

    @property
    def decisions(self) -> Json:
        """What training will do."""
        decisions: Json = self.record["decisions"]
        return decisions

    @property
    def estimates(self) -> Json:
        """Seconds, bytes and steps, see `planning.estimates.estimate`."""
        estimates: Json = self.record["estimates"]
        return estimates

    def to_json(self) -> Json:
        """Return all of it, for machines."""
        return self.record

    def save(self, path: PathLike) -> Path:
        """Write it as JSON, durably, and return the path."""
        from vesalius.files import write_json

        return write_json(path, self.record)

    def lines(self) -> list[str]:
        """Return all of it, for people."""
        out = [f"plan {self.record['task']}-{self.record['id'][:8]}", "", "data:"]
        out += [f"  {line}" for line in self.record["audit"]]
        out += [f"  {name}: {_shown(value)}" for name, value in self.record["fingerprint"].items()]
        out += ["", "decisions:"]
        out += [f"  {name}: {_shown(value)}" for name, value in _dotted(self.decisions)]
        return [*out, "", "estimates:", *(f"  {line}" for line in self._estimated())]

    def _estimated(self) -> Iterator[str]:
        held, budget = self.estimates, self.decisions["budget"]
        yield f"disk: {_megabytes(held['cache_bytes'])} of prepared images while training"
        yield f"memory: {_megabytes(held['memory_bytes'])} at the peak"
        yield f"preparing {held['images']} images: {_time(held['preparing_seconds'])}"
        for name, one in held.get("frozen", {}).items():
            yield f"embedding them by {name}: {_time(one['seconds'])}"
        for name, one in held["networks"].items():
            words = (
                f"{name}: {one['parameters'] / 1e6:.2f} M parameters, {one['steps']} steps of "
                f"{one['seconds_per_step']:.3f} s, {_time(one['seconds'])} with validations, "
                f"{_megabytes(one['training_bytes'])}"
            )
            if "device_bytes" in one:
                words += f" and {_megabytes(one['device_bytes'])} on the GPU"
            if "folds" in one:
                words += f", for each of {one['folds']} folds"
            yield words
        for name, why in held.get("left_out", {}).items():
            yield f"{name}: would be left out for time: {why}"
        asked = f"{budget['minutes']:g} minutes asked" if "minutes" in budget else "steps as asked"
        yield f"time: {_time(held['seconds'])} ({asked})"


def plan(
    task: Task,
    cohort: PathLike | Cohort,
    *,
    target: str | None = None,
    target_kind: str = "auto",
    case: str = "auto",
    minutes: float | None = None,
    steps: int | None = None,
    folds: int = 1,
    out: PathLike | None = None,
    model: str = "auto",
    operating: str = "",
    encoder: PathLike | None = None,
    start: PathLike | None = None,
    normalize: str = "auto",
    where: str | None = None,
    split: PathLike | None = None,
    ungrouped_split: bool = False,
    seed: int = 0,
    labels: str = "",
    ignore: str = "",
    memory: int | None = None,
    pairs: str = "",
) -> Plan:
    """Return what `train` with the same arguments would do, and what it would take.

    Reads the rows of the cohort (of a segmentation its masks too), prepares a few images, and
    trains each network for a few steps on random numbers of the plan's shapes, to be thrown away.

    Args:
        task, cohort, target, target_kind, case, minutes, steps, folds, model, operating, encoder,
            start, normalize, where, split, ungrouped_split, seed, labels, ignore, memory, pairs: as
            in `train`.
        out: file for the plan, to be edited and handed to `train` as `plan`.

    Raises:
        UsageError: a wrong argument.
        CohortError: the cohort has no label, no mask, no box or too few cases.
        BudgetError: the minutes do not suffice for ten steps, or the memory for any patch.
    """
    from vesalius.flows.planning.asked import Asked
    from vesalius.flows.planning.draft import draft, gather
    from vesalius.flows.planning.estimates import estimate
    from vesalius.tasks.run import plan_id

    asked = Asked(
        task=task,
        target=target,
        target_kind=target_kind,
        case=case,
        minutes=minutes,
        steps=steps,
        folds=folds,
        model=model,
        operating=operating,
        encoder=encoder,
        start=start,
        normalize=normalize,
        where=where,
        split=split,
        ungrouped_split=ungrouped_split,
        seed=seed,
        labels=labels,
        ignore=ignore,
        memory=memory,
        pairs=pairs,
    )
    data = gather(asked, cohort)
    drafted = draft(data)
    drafted["estimates"] = estimate(drafted, data, encoder)
    planned = Plan({"format": FORMAT, "id": plan_id(drafted), **drafted})
    if out is not None:
        planned.save(out)
    return planned


def _dotted(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested decisions as `name.part` and value, the parts of lists by their own names."""
    for name, part in value.items():
        if isinstance(part, Mapping) and part:
            yield from _dotted(part, f"{prefix}{name}.")
        elif isinstance(part, list) and part and isinstance(part[0], Mapping):
            members = {member_name(one): one for one in part}
            yield from _dotted(members, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", part


def _shown(value: Any) -> str:
    """Return a value as a few words on one line."""
    if isinstance(value, Mapping):
        parts = [f"{name or 'unknown'}: {_part(part)}" for name, part in value.items()]
    elif isinstance(value, list):
        parts = [_part(part) for part in value]
    else:
        parts = [str(value)] if value != "" else []
    text = ", ".join(parts) or "none"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 2]} …"


def _part(value: Any) -> str:
    return f"({_shown(value)})" if isinstance(value, (Mapping, list)) else _shown(value)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
