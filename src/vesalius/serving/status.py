# SPDX-License-Identifier: Apache-2.0
"""What a server's state holds and waits for, told from the folder, whether a server runs or not."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from vesalius.serving import queue
from vesalius.serving.audit import Audit, Verdict
from vesalius.serving.overview import Rule, overview
from vesalius.serving.reconcile import Reconciled, reconcile
from vesalius.serving.state import State
from vesalius.types import Json, PathLike

_MOST_PROBLEMS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What was found.

    Attributes:
        running: whether a server holds the state.
        instances, bytes: held.
        studies: state -> number.
        jobs: kind -> state -> number.
        problems: jobs that were refused or failed, the latest first: number, run or target, reason.
        free_bytes: of the disk.
        audit: whether the audit log is whole.
        rules: which run each routing rule has, and that run's health.
        files: what a look at every file found; None where none was made.
    """

    running: bool
    instances: int
    bytes: int
    studies: dict[str, int]
    jobs: dict[str, dict[str, int]]
    problems: list[Json]
    free_bytes: int
    audit: Verdict
    rules: list[Rule]
    files: Reconciled | None = field(default=None)

    @property
    def ok(self) -> bool:
        """Whether nothing is lost, damaged or changed, and each run reproduces its golden cases."""
        if any(one.healthy is False for one in self.rules):
            return False
        lost = self.files is not None and (self.files.missing or self.files.damaged)
        return not lost and not self.audit.broken

    def to_json(self) -> Json:
        """Return all of it, for machines."""
        files = self.files
        return {
            "running": self.running,
            "instances": self.instances,
            "bytes": self.bytes,
            "studies": self.studies,
            "jobs": self.jobs,
            "problems": self.problems,
            "free_bytes": self.free_bytes,
            "rules": [one.to_json() for one in self.rules],
            "audit": {
                "lines": self.audit.lines,
                "broken": self.audit.broken,
                "why": self.audit.why,
            },
            "files": None
            if files is None
            else {"missing": files.missing, "damaged": files.damaged, "adopted": files.adopted},
            "ok": self.ok,
        }

    def lines(self) -> list[str]:
        """Return all of it, for people."""
        studies = ", ".join(f"{count} {name}" for name, count in sorted(self.studies.items()))
        out = [
            f"server: {'running' if self.running else 'not running'}",
            f"instances: {self.instances:,} ({self.bytes / 1e6:,.1f} MB)",
            f"disk left: {self.free_bytes / 1e9:,.1f} GB",
            f"studies: {studies or 'none'}",
            *(line for one in self.rules for line in one.lines()),
        ]
        for kind, states in sorted(self.jobs.items()):
            counts = ", ".join(f"{count} {name}" for name, count in sorted(states.items()))
            out.append(f"{kind}: {counts}")
        out += [
            f"job {one['job']} {one['state']} ({one['of']}): {one['reason']}"
            for one in self.problems
        ]
        audit = self.audit
        whole = f"BROKEN at line {audit.broken}: {audit.why}" if audit.broken else "whole"
        out.append(f"audit log: {audit.lines:,} lines, {whole}")
        if self.files is not None:
            out.append(
                f"files: {self.files.missing} missing, {self.files.damaged} damaged, "
                f"{self.files.adopted} found without an entry and taken in"
            )
        return out


def status(state: PathLike, *, verify: bool = False) -> Status:
    """Look at a state.

    Args:
        state: folder of a server's state.
        verify: read every file and compare it with its hash; no server may run.

    Raises:
        UsageError: the folder holds no state, or a server runs while files are to be verified.
    """
    held = State.existing(state)
    try:
        files = None
        if verify:
            with held.locked():
                files = reconcile(held, thorough=True)
        connection = held.connection()
        count, size = connection.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM instances"
        ).fetchone()
        jobs: dict[str, dict[str, int]] = {}
        for (kind, name), number in queue.depth(held).items():
            jobs.setdefault(kind, {})[name] = number
        return Status(
            running=_running(held.folder),
            instances=count,
            bytes=size,
            studies=dict(connection.execute("SELECT state, count(*) FROM studies GROUP BY 1")),
            jobs=jobs,
            problems=_problems(held),
            free_bytes=held.free_bytes(),
            audit=Audit(held).verify(),
            rules=overview(connection),
            files=files,
        )
    finally:
        held.close()


def _problems(state: State) -> list[Json]:
    rows = state.connection().execute(
        "SELECT id, state, subject, reason FROM jobs WHERE state IN ('refused', 'failed') "
        "ORDER BY id DESC LIMIT ?",
        (_MOST_PROBLEMS,),
    )
    found = []
    for number, name, subject, reason in rows:
        known = json.loads(subject)
        of = known.get("target") or f"run {known.get('run_id', '')[:8]}"
        found.append({"job": number, "state": name, "of": of, "reason": reason})
    return found


def _running(root: Path) -> bool:
    """Return whether a server holds the lock."""
    try:
        handle = os.open(root / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(handle)
