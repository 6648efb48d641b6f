# SPDX-License-Identifier: Apache-2.0
"""`vesalius rollback`: a routing rule gets the run back that it had before."""

from __future__ import annotations

import getpass
from dataclasses import dataclass

from vesalius.types import Json, PathLike


@dataclass(frozen=True, slots=True)
class RolledBack:
    """The rule, its active run in short words, the number of that version, and since when."""

    rule: str
    run: str
    version: int

    def to_json(self) -> Json:
        """Return all of it, for machines."""
        return {"rule": self.rule, "run": self.run, "version": self.version}

    def lines(self) -> list[str]:
        """Return all of it, for people."""
        held = f"{self.run}, version {self.version},"
        return [f"{held} is active again for the rule '{self.rule}' from the next study on"]


def rollback(*, state: PathLike, rule: str = "", reason: str = "") -> RolledBack:
    """Give a routing rule the run back that it had before, without a restart.

    What waits is asked of that run; what is under way ends with the run that it began with.

    Args:
        state: folder of a server's state.
        rule: name of the rule; may be left out where there is one.
        reason: for the audit log.

    Raises:
        UsageError: no such rule, or no version before.
        RunError: the files of the version before are gone or changed.
    """
    from vesalius.serving import golden_watch, promotion, versions
    from vesalius.serving.audit import Audit
    from vesalius.serving.state import State

    held = State.existing(state)
    try:
        name = versions.chosen(held.connection(), rule)
        actor = f"user {getpass.getuser()}"
        version = promotion.roll_back(held, Audit(held), name, actor, reason)
        golden_watch.ask(held, name)
        return RolledBack(name, version.run.name, version.number)
    finally:
        held.close()
