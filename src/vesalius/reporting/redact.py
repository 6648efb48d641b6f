# SPDX-License-Identifier: Apache-2.0
"""Takes paths out of words that go into a report: rows are named by their keys alone (law 10)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from vesalius.types import Task

_PATH = re.compile(r"(?<![\w<])(?:[A-Za-z]:)?[\\/](?:[^\s'\",;:]+[\\/])+[^\s'\",;:]*")
HIDDEN = "[path]"


def without_paths(words: str, paths: Iterable[str] = ()) -> str:
    """Return `words` with each of `paths`, their names and every absolute path replaced."""
    for path in sorted({p for p in paths if p}, key=len, reverse=True):
        pure = PurePosixPath(path.replace("\\", "/"))
        parts = (path, str(pure), pure.name, pure.stem)
        for part in sorted({p for p in parts if len(p) > 3}, key=len, reverse=True):
            words = words.replace(part, HIDDEN)
    return _PATH.sub(HIDDEN, words)


def plain_evidence(value: Any, paths: Iterable[str] = ()) -> Any:
    """Return JSON-like evidence with paths taken out of its strings and floats shortened."""
    if isinstance(value, dict):
        return {str(name): plain_evidence(part, paths) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_evidence(part, paths) for part in value[:12]]
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return without_paths(value, paths) if isinstance(value, str) else value


def shareable_command(command: Any, *, run: Path, cohort: Path) -> str:
    """Return a command line in which folders are named by their role: RUN, COHORT or PATH."""
    words = shlex.split(command) if isinstance(command, str) else [str(w) for w in command or []]
    roles = {run.name: "RUN", cohort.name: "COHORT"}

    def shown(word: str) -> str:
        name = Path(word.rstrip("/\\")).name
        if name in roles and (name == word.rstrip("/\\") or "/" in word or "\\" in word):
            return roles[name]
        if "/" in word or "\\" in word:
            return "PATH" if "=" not in word.split("/")[0] else word.split("=")[0] + "=PATH"
        return word

    kept = words[: 3 if words[2:3] and words[2] in get_args(Task) else 2]
    shown_words = [*kept, *map(shown, words[len(kept) :])]
    return " ".join(w if w in {"RUN", "COHORT", "PATH"} else shlex.quote(w) for w in shown_words)
