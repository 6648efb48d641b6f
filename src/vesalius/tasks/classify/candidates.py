# SPDX-License-Identifier: Apache-2.0
"""The candidates of a mixture: heads on frozen encoders, and networks, as far as the minutes go.

What a candidate takes is found by trying a little of it. Frozen features come first: they give most
for the time. Where networks wait, a further head may take half of the time that is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vesalius.errors import BudgetError
from vesalius.tasks.cases import Case
from vesalius.tasks.classify.batch import FACTS
from vesalius.tasks.classify.clock import Clock
from vesalius.tasks.classify.crossfit import crossfit, seconds_to_crossfit
from vesalius.tasks.classify.embeddings import embed_store, embedded, seconds_to_embed
from vesalius.tasks.classify.heads import Embedded
from vesalius.tasks.classify.members import HeadMember, Member, NetworkMember
from vesalius.tasks.classify.network import Lesson, measure, train_network
from vesalius.tasks.classify.store import Store
from vesalius.tasks.classify.warm_start import network_weights
from vesalius.tasks.frozen import FrozenEncoder
from vesalius.tasks.run import Run
from vesalius.tasks.targets import Target
from vesalius.training import budget, device
from vesalius.types import Array, Json, PathLike, Progress

REFERENCES = 5000  # training cases that outliers are compared with


@dataclass(frozen=True, slots=True)
class Rows:
    """The cases of each subset that have an image at least, and their views."""

    store: Store
    target: Target
    groups: dict[str, int]  # case key -> what must lie in one fold
    train: list[Case]
    val: list[Case]
    calibration: list[Case]

    @property
    def pool(self) -> list[Case]:
        """What heads are fitted on."""
        return [*self.train, *self.val]


def fit_heads(
    run: Run,
    rows: Rows,
    encoders: Sequence[FrozenEncoder],
    clock: Clock,
    progress: Progress | None,
) -> tuple[list[Member], list[Array]]:
    """Return fitted heads, and what they said of the pool's cases when these were held out."""
    members: list[Member] = []
    held = []
    pool, decisions = rows.pool, run.decisions
    truths = [case.truth for case in pool]
    facts = [len(decisions["facts"][fact]) for fact in FACTS]
    weights = class_weights(decisions)
    for number, encoder in enumerate(encoders):
        spec = decisions["frozen"][number]
        path = embeddings_path(run, number)
        stem = f"{spec['encoder']}-{spec['size']}"
        if not clock.fits(stem, lambda e=encoder, p=path: seconds_to_embed(p, e, rows.store)):  # type: ignore[misc]
            continue
        cases = embed(path, rows, encoder, pool, progress)
        for place, head in enumerate(spec["heads"], 1):
            name = f"{stem}-{head['name']}"
            if clock.fits(
                name,
                lambda h=head, c=cases: seconds_to_crossfit(  # type: ignore[misc]
                    h, c, truths, rows.target, facts=facts, weights=weights
                ),
                share=0.5 if members and decisions["networks"] else 1.0,
            ):
                fitted = crossfit(
                    head,
                    cases,
                    truths,
                    [rows.groups[case.key] for case in pool],
                    rows.target,
                    facts=facts,
                    weights=weights,
                    seed=int(run.plan["seed"]),
                )
                members.append(HeadMember(name, number, fitted.spec, fitted.head, rows.target))
                held.append(fitted.held_out)
            if progress is not None:
                progress("fitting heads", place, len(spec["heads"]))
    return members, held


def fit_networks(
    run: Run,
    rows: Rows,
    clock: Clock,
    progress: Progress | None,
    start: PathLike | None,
) -> tuple[Run, list[Member], list[Array]]:
    """Train the plan's networks; return them and what they say of the validation cases.

    Args:
        run: with its plan.
        rows: of the run.
        clock: of the run.
        progress: called as `progress(stage, done, total)`.
        start: a finished run whose network's weights to begin with.
    """
    decisions = run.decisions
    fabric = device.start(decisions["precision"])
    measured: Json = dict(run.plan["measured"].get("networks", {}))
    members: list[Member] = []
    held = []
    for number, spec in enumerate(decisions["networks"]):
        name = spec["name"]
        if name in clock.left_out:
            continue
        seed = int(run.plan["seed"]) + number
        lesson = Lesson(
            spec, rows.store, rows.train, rows.val, rows.target, class_weights(decisions), seed,
            None if start is None else network_weights(start, spec, decisions["target"]),
        )  # fmt: skip
        if name not in measured:
            waiting = len(decisions["networks"]) - number
            try:
                measured[name] = measure(
                    lesson,
                    budget.share(decisions["budget"], clock.started, waiting),
                    fabric,
                    clock.started,
                    finals=_finals(rows),
                )
            except BudgetError as error:
                clock.leave_out(name, str(error))
                continue
            run = run.measure(networks=measured)
        folder = run.path / "networks" / name
        model, outcome = train_network(lesson, folder, measured[name], fabric, progress)
        measured[name] = {
            **measured[name],
            "steps_done": outcome.steps,
            "best_step": outcome.best_step,
            "ended": outcome.ended,
            "training_seconds": round(outcome.seconds, 1),
        }
        run = run.measure(networks=measured)
        member = NetworkMember(name, spec, model, rows.target)
        members.append(member)
        held.append(member.answer([rows.store.images(case) for case in rows.val], {}))
    return run, members, held


def embed(
    path: Path,
    rows: Rows,
    encoder: FrozenEncoder,
    cases: Sequence[Case],
    progress: Progress | None,
) -> Embedded:
    """Return cases as a frozen encoder embeds them, from the file at `path` where it is there."""
    table = embed_store(path, encoder, rows.store, progress)
    keys = [[r["key"] for r in case.rows if r["key"] in table] for case in cases]
    return embedded([[(table[k], rows.store.facts[k]) for k in case] for case in keys])


def embeddings_path(run: Run, number: int) -> Path:
    """Return where the embeddings of an encoder of the plan are kept while training."""
    return run.path / "cache" / f"embeddings-{number}.npy"


def class_weights(decisions: Json) -> Tensor | None:
    """Return the weights of the classes in the loss, None for none."""
    held = decisions["class_weights"]
    return None if held is None else torch.tensor(held, dtype=torch.float32)


def _finals(rows: Rows) -> float:
    """Return the work after training in validations: answers of both sides, and embeddings."""
    count = len(rows.val)
    others = len(rows.calibration) + min(REFERENCES, len(rows.train))
    return (2 * (count + len(rows.calibration)) + count + others) / count
