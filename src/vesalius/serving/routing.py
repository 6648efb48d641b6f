# SPDX-License-Identifier: Apache-2.0
"""Which series of a study go to which run.

Rules come from a JSON file, a list of objects:
```
[{"name": "brain", "run": "runs/segment-1f2e3d4c", "modality": "MR", "body_part": "HEAD",
  "series": "*T1*", "priority": 5}]
```
All but `run` may be left out; `series` is a pattern for the series description, and like the others
without regard to case. Without a file each run gets the series of the modalities it was trained on.
A rule's name stays when another run is promoted for it; without one it is made of task and pattern.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from vesalius.errors import UsageError, did_you_mean
from vesalius.files import read_json
from vesalius.serving.runs import ServedRun
from vesalius.types import PathLike

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OTHER = re.compile(r"[^a-z0-9]+")
_KEYS = ("name", "run", "modality", "body_part", "series", "priority")
# Never an input: what is made of images, and words
_DERIVED = frozenset({"SEG", "SR", "RTSTRUCT", "RTPLAN", "RTDOSE", "PR", "KO", "DOC", "REG"})


@dataclass(frozen=True, slots=True)
class Series:
    """What a rule looks at."""

    uid: str
    modality: str
    body_part: str
    description: str


@dataclass(frozen=True, slots=True)
class Route:
    """One rule; empty patterns match anything."""

    run: ServedRun
    modalities: tuple[str, ...] = ()
    body_part: str = ""
    series: str = ""
    priority: int = 0
    name: str = ""

    def takes(self, one: Series) -> bool:
        """Return whether the series is an input of the run."""
        return (
            one.modality not in _DERIVED
            and (not self.modalities or one.modality.upper() in self.modalities)
            and _matches(self.body_part, one.body_part)
            and _matches(self.series, one.description)
        )


def default_routes(runs: Iterable[ServedRun]) -> list[Route]:
    """Return a rule for each run: the series of the modalities that it was trained on."""
    return _named([Route(run, run.modalities) for run in runs])


def read_routes(path: PathLike, runs: Sequence[ServedRun]) -> list[Route]:
    """Read rules.

    Args:
        path: of the JSON file.
        runs: that are served; a rule names one by its folder.

    Raises:
        UsageError: no such file, or a rule that is none.
    """
    try:
        rules = read_json(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"the rules '{path}' cannot be read: {error}") from error
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise UsageError(f"the rules '{path}' must be a list of objects")
    by_path = {str(run.path): run for run in runs}
    routes = []
    for number, rule in enumerate(rules, 1):
        for key in rule:
            if key not in _KEYS:
                raise UsageError(
                    f"rule {number} has '{key}'; allowed are {', '.join(_KEYS)}."
                    f"{did_you_mean(key, _KEYS)}"
                )
        routes.append(_route(number, rule, by_path))
    given = [route.name for route in routes if route.name]
    if twice := sorted({name for name in given if given.count(name) > 1}):
        raise UsageError(f"two rules have the name '{twice[0]}'; names tell rules apart")
    return _named(routes)


def _route(number: int, rule: dict[str, object], runs: dict[str, ServedRun]) -> Route:
    named = str(rule.get("run", ""))
    run = next((run for path, run in runs.items() if path == named or path.endswith(f"/{named}")),
               None)  # fmt: skip
    if run is None or not named:
        raise UsageError(f"rule {number} must name a run that is served: {', '.join(runs)}")
    priority = rule.get("priority", 0)
    if not isinstance(priority, int):
        raise UsageError(f"rule {number}: priority must be a whole number, got {priority!r}")
    name = str(rule.get("name", ""))
    if name and not _NAME.fullmatch(name):
        raise UsageError(
            f"rule {number}: a name has 1 to 64 letters, digits, '-', '_' and '.', got '{name}'"
        )
    modality = str(rule.get("modality", "")).upper()
    return Route(
        run,
        (modality,) if modality else run.modalities,
        str(rule.get("body_part", "")),
        str(rule.get("series", "")),
        priority,
        name,
    )


def _named(routes: Sequence[Route]) -> list[Route]:
    """Give names to the rules that have none: what they are about, and a number where it must be.

    Rules that are alike get their numbers in the order of their runs, not in that of the list.
    """
    taken = {route.name for route in routes if route.name}
    found = dict(enumerate(routes))
    for place, route in sorted(found.items(), key=lambda item: item[1].run.id):
        if route.name:
            continue
        words = (route.run.task, *route.modalities, route.body_part, route.series)
        stem = _OTHER.sub("-", "-".join(filter(None, words)).lower()).strip("-")[:56]
        name, number = stem, 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name)
        found[place] = replace(route, name=name)
    return [found[place] for place in range(len(routes))]


def _matches(pattern: str, text: str) -> bool:
    return not pattern or fnmatch.fnmatchcase(text.upper(), pattern.upper())
