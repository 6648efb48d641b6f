# SPDX-License-Identifier: Apache-2.0
"""Whether the server can do its work, and the numbers that tell how it does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vesalius.serving import queue
from vesalius.serving.intake import Intake
from vesalius.serving.overview import Rule, overview
from vesalius.serving.reconcile import Reconciled
from vesalius.serving.state import State
from vesalius.types import Json
from vesalius.version import __version__


@dataclass(slots=True)
class Vitals:
    """What health and metrics are told from.

    Attributes:
        state, intake: the server's.
        found: what the start found.
        associations: how many there are now; None without a DICOM node.
        workers: how many should be there, and a function that says how many are.
        started: monotonic seconds.
        rules: names of the routing rules that are served.
    """

    state: State
    intake: Intake
    found: Reconciled = field(default_factory=Reconciled)
    associations: Callable[[], int] | None = None
    workers: tuple[int, Callable[[], int]] = (0, lambda: 0)
    started: float = field(default_factory=time.monotonic)
    rules: Sequence[str] = ()

    def problems(self) -> list[str]:
        """Return what keeps the server from its work, in words without patients."""
        out = []
        free = self.state.free_bytes()
        if free < self.intake.reserve:
            out.append(f"the disk has {free >> 20} MiB left: instances are refused")
        if self.found.missing or self.found.damaged:
            lost = self.found.missing + self.found.damaged
            out.append(f"{lost} instances of the index are gone or damaged on disk")
        wanted, alive = self.workers
        if wanted and not alive():
            out.append("no worker runs: studies are received and not answered")
        out += [
            f"{one.version.run.name}, the run of the rule '{one.version.rule}', is damaged or does "
            f"not reproduce its golden cases: {one.waiting} studies wait for it; roll back, or "
            "restore it"
            for one in self._served()
            if one.healthy is False
        ]
        return out

    def _served(self) -> list[Rule]:
        found = overview(self.state.connection(), brief=True)
        return [one for one in found if one.version.rule in self.rules]

    def to_json(self) -> Json:
        """Return health for machines that watch it."""
        problems = self.problems()
        return {
            "status": "unhealthy" if problems else "healthy",
            "problems": problems,
            "version": __version__,
        }

    def metrics(self) -> str:
        """Return numbers in Prometheus' text format; none tells who a patient is."""
        counts, served = self.intake.counts, self._served()
        query = "SELECT count(*), coalesce(sum(size), 0) FROM instances"
        held, size = self.state.connection().execute(query).fetchone()
        states = self.state.connection().execute("SELECT state, count(*) FROM studies GROUP BY 1")
        lines = [
            *_metric("vesalius_received_instances_total", "counter",
                     "Instances taken in since the start.", {"": counts.instances}),
            *_metric("vesalius_received_bytes_total", "counter",
                     "Bytes taken in since the start.", {"": counts.bytes}),
            *_metric("vesalius_refused_instances_total", "counter",
                     "Instances refused since the start.", {"": counts.refused}),
            *_metric("vesalius_commits_total", "counter",
                     "Durable commits since the start.", {"": counts.commits}),
            *_metric("vesalius_held_instances", "gauge", "Instances held.", {"": held}),
            *_metric("vesalius_held_bytes", "gauge", "Bytes held.", {"": size}),
            *_metric("vesalius_disk_free_bytes", "gauge", "Bytes left on the disk.",
                     {"": self.state.free_bytes()}),
            *_metric("vesalius_studies", "gauge", "Studies by state.",
                     {f'state="{name}"': count for name, count in states}),
            *_metric("vesalius_jobs", "gauge", "Jobs by kind and state.",
                     {f'kind="{kind}",state="{name}"': count
                      for (kind, name), count in queue.depth(self.state).items()}),
            *_metric("vesalius_workers", "gauge", "Worker processes.", {"": self.workers[1]()}),
            *_metric("vesalius_uptime_seconds", "gauge", "Seconds since the start.",
                     {"": round(time.monotonic() - self.started, 1)}),
            *_metric("vesalius_healthy", "gauge", "1 where nothing keeps it from its work.",
                     {"": int(not self.problems())}),
            *_metric("vesalius_run_healthy", "gauge",
                     "1 where a run is whole and reproduces its golden cases, 0 where not.",
                     {one.labels: int(one.healthy) for one in served
                      if one.healthy is not None}),
            *_metric("vesalius_run_version", "gauge", "Number of a rule's active version.",
                     {one.labels: one.version.number for one in served}),
            *_metric("vesalius_drift_alarms", "gauge",
                     "Groups of studies (all, a scanner, a site) with a drift alarm.",
                     {one.labels: one.alarms for one in served}),
        ]  # fmt: skip
        if self.associations is not None:
            lines += _metric("vesalius_associations", "gauge", "DICOM associations.",
                             {"": self.associations()})  # fmt: skip
        return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, words: str, values: Mapping[str, float]) -> Iterable[str]:
    yield f"# HELP {name} {words}"
    yield f"# TYPE {name} {kind}"
    for labels, value in values.items():
        yield f"{name}{{{labels}}} {value}" if labels else f"{name} {value}"
