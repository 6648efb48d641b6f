# SPDX-License-Identifier: Apache-2.0
"""Golden cases: exams with answers that a run must give again, or it is not healthy.

```
golden/NAME/exam/              the images, without identity
golden/NAME/answers/RUN_ID/    what the run said when it was promoted: prediction.json, label maps
```
A run that is promoted for a rule is asked all cases of the rule, and its answers are recorded. Each
later answer to one of these has to agree with it, within what another processor may change.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vesalius.errors import RunError, VesaliusError
from vesalius.files import fsync_folder, fsync_tree, read_json
from vesalius.serving import agreement, versions
from vesalius.serving.agreement import Answer
from vesalius.serving.runs import ServedRun
from vesalius.serving.state import State
from vesalius.types import Json

_LOG = logging.getLogger(__name__)
LOWEST_DICE = 0.995  # of each structure, with the recorded one
MOST_PROBABILITY = 0.01  # between an answer's probabilities and the recorded ones
MOST_OF_NUMBER = 0.01  # between a regression's number and the recorded one, in parts of it


@dataclass(frozen=True, slots=True)
class Health:
    """What a check of a run found: how many cases, and what is wrong, in words."""

    cases: int
    problems: tuple[str, ...] = ()


def cases(state: State, rule: str) -> list[str]:
    """Return the names of a rule's golden cases, the oldest first."""
    rows = state.connection().execute(
        "SELECT name FROM golden_cases WHERE rule = ? ORDER BY added, name", (rule,)
    )
    return [row[0] for row in rows]


def add_case(state: State, rule: str, name: str, exam: Path) -> bool:
    """Take a folder of images without identity in as a case, durably.

    Args:
        state: the state.
        rule: whose runs are asked.
        name: of the case.
        exam: the folder, on the state's own disk; it is moved.

    Returns:
        Whether the rule did not have the case before.
    """
    home = _home(state, name)
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "exam").exists():
        fsync_tree(exam)
        os.rename(exam, home / "exam")
    for folder in (home, home.parent, state.folder):
        fsync_folder(folder)
    with state.transaction() as connection:
        return bool(
            connection.execute(
                "INSERT OR IGNORE INTO golden_cases VALUES (?, ?, ?)",
                (rule, name, versions.wall_clock()),
            ).rowcount
        )


def remove_case(state: State, rule: str, name: str) -> None:
    """Remove a case from a rule, and its files where no other rule has it."""
    with state.transaction() as connection:
        connection.execute("DELETE FROM golden_cases WHERE rule = ? AND name = ?", (rule, name))
        left = connection.execute("SELECT 1 FROM golden_cases WHERE name = ?", (name,)).fetchone()
    if left is None:
        shutil.rmtree(_home(state, name), ignore_errors=True)


def unanswered(state: State, rule: str, run: ServedRun) -> list[str]:
    """Return the cases of a rule that a run's answer was not recorded for."""
    return [name for name in cases(state, rule) if not _recorded(state, name, run).exists()]


def forget_answers(state: State, names: Iterable[str], run: ServedRun) -> None:
    """Remove a run's recorded answers to some cases."""
    for name in names:
        shutil.rmtree(_recorded(state, name, run), ignore_errors=True)


def check(
    state: State,
    rule: str,
    run: ServedRun,
    digest: str,
    answer: Answer,
    work: Path,
    *,
    record: bool = False,
) -> Health:
    """Ask a run for golden cases of a rule, and keep what was found as the run's health.

    Args:
        state: the state.
        rule: name of the rule.
        run: the run.
        digest: of what it answers with, when it was activated.
        answer: applies it.
        work: an empty folder for answers.
        record: ask for all cases, and record the answers to those that have none; what is wrong
            is then returned and not kept. By default only the cases with a recorded answer are
            asked.
    """
    fresh = unanswered(state, rule, run)
    names = [name for name in cases(state, rule) if record or name not in fresh]
    try:
        damaged = run.digest() != digest
        problems = ["its files are not those that were promoted"] if damaged else []
    except RunError as error:
        problems = [str(error)]
    for name in names if not problems else ():
        problems += _ask(state, name, run, answer, work / name)
    if problems and record:  # of a candidate, or of a case that is new to the active run
        return Health(len(names), tuple(problems))
    with state.transaction() as connection:
        connection.execute(
            "INSERT OR REPLACE INTO run_health VALUES (?, ?, ?, ?, ?)",
            (run.id, state.clock.now(), not problems, len(names), "; ".join(problems)),
        )
    return Health(len(names), tuple(problems))


def compare_runs(state: State, rule: str, run: ServedRun, other: ServedRun) -> list[Json]:
    """Return how far the recorded answers of two runs agree, for each case that both answered."""
    found = []
    for name in cases(state, rule):
        one, two = (_recorded(state, name, each) for each in (run, other))
        if one.exists() and two.exists():
            found.append({"case": name, **agreement.of_answers(one, two)})
    return found


def differences(recorded: Path, fresh: Path) -> list[str]:
    """Return in words where a fresh answer is not the recorded one; both are folders."""
    known, found = (read_json(folder / "prediction.json") for folder in (recorded, fresh))
    if known.get("task") == "classify":
        return _of_classes(known, found)
    out: list[str] = []
    maps = [
        sorted(path.name for path in one.glob(agreement.LABEL_MAPS)) for one in (recorded, fresh)
    ]
    if maps[0] != maps[1]:
        out.append(f"it gives {len(maps[1])} label maps, recorded are {len(maps[0])}")
    for name in sorted(set(maps[0]) & set(maps[1])):
        try:
            scores = agreement.dice_of_files(recorded / name, fresh / name)
        except VesaliusError as error:
            out.append(str(getattr(error, "reason", error)))
            continue
        out += [
            f"'{structure}' has a Dice score of {value:.4f} with the recorded one, "
            f"{LOWEST_DICE} is asked for"
            for structure, value in scores.items()
            if not value >= LOWEST_DICE
        ]
    return out


def _ask(state: State, name: str, run: ServedRun, answer: Answer, out: Path) -> list[str]:
    """Ask for one case; record the first answer, compare each later one."""
    out.mkdir(parents=True)
    try:
        answer(run.path, _home(state, name) / "exam", out)
    except VesaliusError as error:
        return [f"case {name}: no answer: {getattr(error, 'reason', error)}"]
    except Exception as error:  # a damaged file may end in anything
        _LOG.error("golden case %s of %s: %s", name, run.name, type(error).__name__)
        return [f"case {name}: {type(error).__name__} in the run"]
    recorded = _recorded(state, name, run)
    if not recorded.exists():
        agreement.keep(out, recorded)
        return []
    return [f"case {name}: {words}" for words in differences(recorded, out)]


def _of_classes(known: Json, found: Json) -> list[str]:
    agreed = agreement.of_classes(known, found)
    out = []
    limits: Iterable[tuple[str, float]] = (
        ("largest_difference", MOST_PROBABILITY),
        ("difference", MOST_OF_NUMBER * abs(float(known.get("value") or 0.0))),
    )
    told = False
    for name, most in limits:
        if name in agreed:
            told = True
            if not agreed[name] <= most:
                out.append(
                    f"its answer is {agreed[name]:.4g} from the recorded, {most:.4g} is allowed"
                )
    if not told and not agreed["same"]:
        out.append("it answers another class than was recorded")
    return out


def _home(state: State, name: str) -> Path:
    return state.folder / "golden" / name


def _recorded(state: State, name: str, run: ServedRun) -> Path:
    return _home(state, name) / "answers" / run.id
