# SPDX-License-Identifier: Apache-2.0
"""On what machines a session of a search runs, and where it keeps what it learns.

Unlike what is asked of a search, all of it but the journal's and the artifacts' place may differ
from one session to the next.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from vesalius.errors import RunError, UsageError, did_you_mean
from vesalius.files import read_json, write_json
from vesalius.tuning.journal import FILE, Journal, read_journal
from vesalius.tuning.local import LocalProcesses
from vesalius.tuning.process import machine_memory
from vesalius.tuning.protocol import EventLog, Executor
from vesalius.types import Json

STORAGE = "storage.json"  # in a search's folder, where its journal or artifacts are elsewhere
KINDS = ("local", "ray")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """See the module.

    Attributes:
        on: `local` processes, or `ray`.
        address: of the Ray cluster, `HOST:PORT`; None for one that is started here.
        workers: trials at once; None for one here, and on Ray for as many as the nodes take.
        cpus, gpus: of each trial, on Ray.
        journal: address of a PostgreSQL database; None for the search's own file.
        artifacts: `s3://BUCKET/PREFIX` for what trials make; None where all see the folder.
        endpoint: address of the S3 API; None for that of AWS.
    """

    on: str = "local"
    address: str | None = None
    workers: int | None = None
    cpus: int = 1
    gpus: float = 0.0
    journal: str | None = None
    artifacts: str | None = None
    endpoint: str | None = None

    def check(self) -> None:
        """Raise where something contradicts itself.

        Raises:
            UsageError: says what, and what is allowed.
        """
        if self.on not in KINDS:
            known = ", ".join(KINDS)
            hint = did_you_mean(self.on, KINDS)
            raise UsageError(f"a search runs on one of {known}; got '{self.on}'.{hint}")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers must be at least 1, got {self.workers}")
        if self.cpus < 1 or self.gpus < 0:
            raise UsageError(
                f"a trial takes one CPU or more and no negative GPU; got trial_cpus {self.cpus}, "
                f"trial_gpus {self.gpus}"
            )
        if self.on != "ray":
            given = [
                name
                for name, here in (
                    ("address", self.address is not None),
                    ("trial_cpus", self.cpus != 1),
                    ("trial_gpus", self.gpus != 0),
                    ("artifacts", self.artifacts is not None),
                )
                if here
            ]
            if given:
                raise UsageError(f"{', '.join(given)} is of a search on ray; add --on ray")
        if self.endpoint is not None and self.artifacts is None:
            raise UsageError("an endpoint is of artifacts; add --artifacts s3://BUCKET/PREFIX")
        if self.journal is not None:
            from vesalius.tuning.postgres_journal import check_url

            check_url(self.journal)
        if self.artifacts is not None:
            from vesalius.tuning.object_store import split_url

            split_url(self.artifacts)

    def keep(self, folder: Path) -> Json:
        """Write down where journal and artifacts are, once; return that.

        Raises:
            RunError: the search keeps them elsewhere.
        """
        path = folder / STORAGE
        named = {"journal": self.journal, "artifacts": self.artifacts, "endpoint": self.endpoint}
        held = storage_of(folder)
        if not any(named.values()):
            return held
        if held["name"] is None:
            if (folder / FILE).exists():
                raise RunError(
                    f"'{folder}' was begun with its journal and artifacts in its own folder; leave "
                    "out --journal and --artifacts, or search anew in another --out"
                )
            held = {"name": uuid.uuid4().hex, **named}
            write_json(path, held)
        other = [n for n, value in named.items() if value is not None and value != held[n]]
        if other:
            raise RunError(
                f"'{folder}' keeps its {', '.join(other)} at {held[other[0]]}; leave that out, or "
                "search anew in another --out"
            )
        return held

    def executor(self, function: str, *, shared: bool) -> Executor:
        """Return what runs the trials.

        Args:
            function: `module:name` of a trial.
            shared: whether all machines see the search's folder.

        Raises:
            UnavailableError: the cluster does not answer. MissingDependency: Ray is absent.
        """
        if self.on == "local":
            slots = self.workers or 1
            return LocalProcesses(function, slots=slots, memory=machine_memory() // slots)
        from vesalius.tuning.ray_cluster import Needs, RayCluster

        return RayCluster(
            function,
            address=self.address,
            slots=self.workers,
            needs=Needs(cpus=self.cpus, gpus=self.gpus),
            shared=shared,
        )


def storage_of(folder: Path) -> Json:
    """Return where a search keeps things: `name`, `journal`, `artifacts`, `endpoint`, or Nones."""
    path = folder / STORAGE
    if not path.exists():
        return dict.fromkeys(("name", "journal", "artifacts", "endpoint"))
    held: Json = read_json(path)
    return held


def open_events(folder: Path) -> EventLog:
    """Open the journal of a search, to write.

    Raises:
        UsageError: another process writes to it. RunError: it is damaged.
        UnavailableError: its server does not answer.
    """
    held = storage_of(folder)
    if held["journal"] is None:
        return Journal(folder / FILE)
    from vesalius.tuning.postgres_journal import PostgresJournal

    return PostgresJournal(held["journal"], held["name"])


def read_events(folder: Path) -> list[Json]:
    """Return the events of a search that may be running.

    Raises:
        RunError: there is no journal, or it is damaged.
        UnavailableError: its server does not answer.
    """
    held = storage_of(folder)
    if held["journal"] is None:
        return read_journal(folder / FILE)
    from vesalius.tuning.postgres_journal import read_postgres

    return read_postgres(held["journal"], held["name"])
