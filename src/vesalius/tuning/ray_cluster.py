# SPDX-License-Identifier: Apache-2.0
"""The executor of many machines: each trial is a task of Ray, in a process of its own on a node.

Ray places tasks and tells what became of them; the journal of the head stays the truth. Ray itself
repeats nothing: an attempt that a lost worker or node took with it is `killed`, and begun again as
one whose process was killed on this machine is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vesalius.errors import UnavailableError
from vesalius.tuning.on_node import attempt
from vesalius.tuning.process import write_job
from vesalius.tuning.protocol import Job, Outcome
from vesalius.tuning.ray_connection import join
from vesalius.types import Json

_FRESH = 2.0  # seconds that what is known of the nodes is good for
_JOINING = 20.0  # seconds until nodes that are starting must be there
_INSIST = 5.0  # seconds after which a cancelled task is ended with its worker


@dataclass(slots=True)
class _Running:
    job: Job
    task: Any
    begun: float
    cancelled: float | None = None  # when


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a trial takes of a node, by Ray's names.

    Attributes:
        cpus: cores, and threads of the trial's process.
        gpus: share or number of GPUs.
        others: further resources that `ray start --resources` declared.
    """

    cpus: int = 1
    gpus: float = 0.0
    others: Mapping[str, float] | None = None

    def fits(self, resources: Mapping[str, float]) -> int:
        """Return how many trials a node with these resources takes at once."""
        wanted = {"CPU": float(self.cpus), "GPU": self.gpus, **(self.others or {})}
        return min(int(resources.get(k, 0.0) / v) for k, v in wanted.items() if v > 0)


class RayCluster:
    """See `protocol.Executor`."""

    def __init__(
        self,
        function: str,
        *,
        address: str | None = None,
        slots: int | None = None,
        needs: Needs | None = None,
        shared: bool = True,
        bounded: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Join a cluster, see `ray_connection.join`.

        Args:
            function: `module:name` of what is called in each process with a job's payload; all
                nodes must have it.
            address: of the cluster.
            slots: trials at once at most; None for as many as the nodes take.
            needs: of each trial; default one core.
            shared: whether all nodes see the jobs' folders.
            bounded: whether a process may take its cores' share of its node's memory at most.
            environment: variables of the processes, beside those of their node.

        Raises:
            UsageError: the address is none. UnavailableError: nothing answers there, or no node
                has what a trial needs.
        """
        self.function, self.slots, self.needs = function, slots, needs or Needs()
        self._shared, self._bounded = shared, bounded
        self._environment = dict(environment or {})
        self._running: dict[int, _Running] = {}
        self._ray = join(address, cores=(slots or 1) * self.needs.cpus)
        self._task = self._ray.remote(attempt)
        self._nodes: list[Json] = []
        self._looked = -_FRESH
        try:
            self._wait_for_a_node()
        except BaseException:
            self._ray.shutdown()
            raise

    @property
    def capacity(self) -> int:
        """How many trials the nodes that live take at once."""
        room = sum(self.needs.fits(node["Resources"]) for node in self._alive())
        return room if self.slots is None else min(room, self.slots)

    @property
    def free(self) -> int:
        """See `Executor.free`."""
        return max(0, self.capacity - len(self._running))

    def submit(self, job: Job) -> None:
        """See `Executor.submit`."""
        held = write_job(job, self.function, None)
        order = {
            "number": job.number,
            "folder": str(job.folder.absolute()) if self._shared else None,
            "cores": self.needs.cpus,
            "bounded": self._bounded,
            "environment": self._environment,
        }
        options = self._task.options(
            num_cpus=self.needs.cpus,
            num_gpus=self.needs.gpus or None,
            resources=dict(self.needs.others or {}) or None,
            max_retries=0,
            name=f"trial {job.number}",
        )
        self._running[job.number] = _Running(job, options.remote(held, order), time.monotonic())

    def poll(self, seconds: float) -> list[Outcome]:
        """See `Executor.poll`."""
        if not self._running:
            time.sleep(seconds)  # all nodes are lost, or busy: the head asks again
            return []
        self._insist()
        tasks = {one.task: one for one in self._running.values()}
        ended, rest = self._ray.wait(list(tasks), timeout=seconds)
        if ended and rest:
            more, _ = self._ray.wait(rest, num_returns=len(rest), timeout=0)
            ended += more
        found = [self._outcome(tasks[task]) for task in ended]
        for outcome in found:
            del self._running[outcome.number]
        return found

    def cancel(self, number: int) -> None:
        """See `Executor.cancel`."""
        one = self._running.get(number)
        if one is not None and one.cancelled is None:
            one.cancelled = time.monotonic()
            self._ray.cancel(one.task, recursive=False)

    def close(self) -> None:
        """See `Executor.close`; leaves the cluster, and ends one that was started here."""
        for one in self._running.values():
            self._ray.cancel(one.task, force=True, recursive=False)
        self._running.clear()
        self._ray.shutdown()

    def _insist(self) -> None:
        for one in self._running.values():
            if one.cancelled is not None and time.monotonic() - one.cancelled > _INSIST:
                self._ray.cancel(one.task, force=True, recursive=False)

    def _outcome(self, one: _Running) -> Outcome:
        errors = self._ray.exceptions
        number, seconds = one.job.number, time.monotonic() - one.begun
        try:
            held = self._ray.get(one.task)
        except errors.RayError as error:
            if one.cancelled is not None:
                return Outcome(number, "cancelled", None, seconds, "the time was over")
            if isinstance(error, errors.OutOfMemoryError):
                return Outcome(number, "memory", None, seconds, "its node ran out of memory")
            if isinstance(error, errors.RayTaskError):  # not of the trial, which has its own words
                reason = f"the node could not begin it: {_last(str(error))}"
                return Outcome(number, "crashed", None, seconds, reason)
            words = f"its worker or node was lost ({type(error).__name__})"
            return Outcome(number, "killed", None, seconds, words)
        if one.cancelled is not None and held["ending"] == "killed":
            return Outcome(number, "cancelled", None, held["seconds"], "the time was over")
        return Outcome(number, held["ending"], held["result"], held["seconds"], held["reason"])

    def _alive(self) -> list[Json]:
        if time.monotonic() - self._looked > _FRESH:
            self._nodes = [node for node in self._ray.nodes() if node["Alive"]]
            self._looked = time.monotonic()
        return self._nodes

    def _wait_for_a_node(self) -> None:
        end = time.monotonic() + _JOINING
        while self.capacity == 0:
            if time.monotonic() > end:
                has = ["{" + _listed(node["Resources"]) + "}" for node in self._alive()]
                raise UnavailableError(
                    f"no node of the Ray cluster has what a trial needs ({self.needs}); the nodes "
                    f"have {', '.join(has) or 'nothing'}: ask for less, or start a larger node"
                )
            time.sleep(0.2)


def _listed(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{k} {v:g}" for k, v in resources.items() if not k.startswith("node:"))


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
