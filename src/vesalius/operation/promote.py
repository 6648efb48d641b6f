# SPDX-License-Identifier: Apache-2.0
"""`vesalius promote`: a run becomes the active one of a routing rule, if it passes its cases."""

from __future__ import annotations

import getpass
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import RunError
from vesalius.types import Json, PathLike

if TYPE_CHECKING:
    from vesalius.serving.audit import Audit
    from vesalius.serving.runs import ServedRun
    from vesalius.serving.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """What came of it.

    Attributes:
        rule: the routing rule.
        run: the run, in short words.
        version: number of the rule's active version.
        shadow: whether the run only looks on.
        switched: whether the rule has another run, or another shadow, than before.
        cases: golden cases that the run reproduced.
        agreement: for each case, how far the run agrees with the one that was active.
    """

    rule: str
    run: str
    version: int
    shadow: bool
    switched: bool
    cases: int
    agreement: Sequence[Json]

    def to_json(self) -> Json:
        """Return all of it, for machines."""
        return {
            "rule": self.rule,
            "run": self.run,
            "version": self.version,
            "shadow": self.shadow,
            "switched": self.switched,
            "cases": self.cases,
            "agreement": list(self.agreement),
        }

    def lines(self) -> list[str]:
        """Return all of it, for people."""
        if not self.switched:
            out = [f"{self.run} is the active run of the rule '{self.rule}' already"]
        elif self.shadow:
            out = [f"{self.run} looks on beside the active run of the rule '{self.rule}'"]
        else:
            what = f"version {self.version}, active for the rule '{self.rule}'"
            out = [f"{self.run} is {what} from the next study on"]
        out.append(
            f"golden cases reproduced: {self.cases}"
            if self.cases
            else "no golden case was asked: give exams with --golden"
        )
        for one in self.agreement:
            said = ", ".join(f"{name} {_said(value)}" for name, value in one.items())
            out.append(f"with the run that was active: {said}")
        return out


def promote(
    run: PathLike,
    *,
    state: PathLike,
    rule: str = "",
    reason: str = "",
    golden: Sequence[PathLike] = (),
    shadow: bool = False,
) -> Promotion:
    """Make a run the active one of a routing rule, from the next study on, without a restart.

    The run is asked for all golden cases of the rule, twice where its answers are not recorded
    yet, and refused where it does not answer, or not the same.

    Args:
        run: folder of a finished run.
        state: folder of a server's state.
        rule: name of the rule; may be left out where only one has a run of the same task.
        reason: for the audit log.
        golden: exams that become golden cases of the rule: files or folders. They are kept in the
            state without who the patient is; what is drawn into the pixels stays.
        shadow: let the run see each study after the active run, and keep its answers for
            comparison only.

    Raises:
        UsageError: no such rule, or one for another task.
        RunError: the run is damaged, or does not reproduce its golden cases.
        DataError: an exam cannot become a golden case.
    """
    from vesalius.serving import golden as cases
    from vesalius.serving import promotion, versions
    from vesalius.serving.audit import Audit
    from vesalius.serving.runs import ServedRun
    from vesalius.serving.state import State

    held = State.existing(state)
    try:
        audit, actor = Audit(held), f"user {getpass.getuser()}"
        served = ServedRun.load(run)
        name, digest = promotion.admitted(held, rule, served)
        _whole_plan(served)
        asked = _prove(held, audit, actor, name, served, digest, golden)
        active = versions.active(held.connection(), name)
        agreement: list[Json] = []
        switched = active is None or active.run != served
        if active is not None and switched:
            agreement = cases.compare_runs(held, name, served, active.run)
            if shadow:
                promotion.look_on(held, audit, name, served, digest, actor, reason)
            else:
                active = promotion.switch(held, audit, name, served, digest, actor, reason)
        return Promotion(
            rule=name,
            run=served.name,
            version=0 if active is None else active.number,
            shadow=shadow,
            switched=switched,
            cases=asked,
            agreement=agreement,
        )
    finally:
        held.close()


def _prove(
    state: State,
    audit: Audit,
    actor: str,
    rule: str,
    run: ServedRun,
    digest: str,
    golden: Sequence[PathLike],
) -> int:
    """Ask a run for the rule's golden cases and some more; return how many it reproduces."""
    from vesalius.operation.golden_inputs import keep
    from vesalius.operation.worker import plainly
    from vesalius.serving import golden as cases

    added = []
    with _folder(state) as work:
        try:
            for number, exam in enumerate(golden, 1):
                kept = work / f"exam-{number}"
                kept.mkdir()
                name = keep(Path(exam), kept, audit.pseudonym)
                if cases.add_case(state, rule, name, kept):
                    added.append(name)
            fresh = cases.unanswered(state, rule, run)
            found = cases.check(state, rule, run, digest, plainly, work / "first", record=True)
            if fresh and not found.problems:  # what was just recorded is to come out again
                found = cases.check(state, rule, run, digest, plainly, work / "second", record=True)
            if found.problems:
                cases.forget_answers(state, fresh, run)
                raise RunError(
                    f"{run.name} is not promoted: {'; '.join(found.problems)}; the rule '{rule}' "
                    "keeps the run that it has"
                )
        except BaseException:
            for name in added:
                cases.remove_case(state, rule, name)
            audit.write(actor, "promotion-refused", rule=rule, run=run.id)
            raise
    for name in added:
        audit.write(actor, "golden-case", rule=rule, case=name)
    return found.cases


def _whole_plan(run: ServedRun) -> None:
    """Raise where a plan is not the one that its hash names."""
    from vesalius.tasks.run import Run, plan_id

    loaded = Run.load(run.path, exported=True)
    if not loaded.exported and plan_id(loaded.plan) != loaded.id:
        raise RunError(
            f"the plan of '{run.path}' is not the one that its hash {run.id} names: it was changed "
            "after training; restore the folder"
        )


@contextmanager
def _folder(state: State) -> Iterator[Path]:
    """Give a folder on the state's disk, for a while."""
    place = state.folder / "work"
    place.mkdir(exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="promote-", dir=place))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _said(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, dict):
        return " ".join(f"{name} {_said(one)}" for name, one in value.items())
    if isinstance(value, list):
        return "; ".join(map(_said, value))
    return str(value)
