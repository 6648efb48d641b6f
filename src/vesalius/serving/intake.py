# SPDX-License-Identifier: Apache-2.0
"""Many senders, one commit: instances that wait at the same moment are made durable together.

Each sender's thread writes and flushes its own file; one thread makes all that have been flushed
meanwhile count. With one sender that is a commit an instance; with eight it is about one commit
for eight, since seven flush while one commit runs.
"""

from __future__ import annotations

import logging
import queue
import threading
from dataclasses import dataclass, field

from vesalius.serving import refusal
from vesalius.serving.refusal import Refused
from vesalius.serving.state import State
from vesalius.serving.store import Arrival, Incoming, commit

_LOG = logging.getLogger(__name__)
_TOGETHER = 256
_WAIT_SECONDS = 120.0


@dataclass(slots=True)
class _Waiting:
    arrival: Arrival
    done: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


@dataclass(slots=True)
class Counts:
    """How much was taken in since the start."""

    instances: int = 0
    bytes: int = 0
    refused: int = 0
    commits: int = 0


class Intake:
    """Takes instances in for one server; `close` when no sender is left."""

    def __init__(self, state: State, *, reserve: int = 256 << 20, largest: int = 8 << 30):
        """Start the thread that commits.

        Args:
            state: the state.
            reserve: bytes that the disk must keep free; below, instances are refused.
            largest: bytes that one instance may have.
        """
        self.state = state
        self.reserve = reserve
        self.largest = largest
        self.counts = Counts()
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
        self._thread.start()

    def check_room(self) -> None:
        """Raise `Refused` where the disk has less than the reserve left."""
        if self.state.free_bytes() < self.reserve:
            raise Refused(
                refusal.OUT_OF_RESOURCES,
                f"the disk of the server's state has less than {self.reserve >> 20} MiB left",
            )

    def begin(self, *, sop_class: str, sop_uid: str, transfer_syntax: str) -> Incoming:
        """Begin an instance; raises `Refused` where there is no room for it."""
        self.check_room()
        return Incoming(
            self.state, sop_class=sop_class, sop_uid=sop_uid, transfer_syntax=transfer_syntax
        )

    def take(self, incoming: Incoming, origin: str, *, study: str = "") -> Arrival:
        """Return when the instance is durable and counts.

        Args:
            incoming: the instance, all of it written.
            origin: the door that it came by.
            study: that it must belong to; empty for any.

        Raises:
            Refused: it is not taken, and gone.
        """
        try:
            arrival = incoming.arrive(origin)
            if study and arrival.attributes.study_uid != study:
                incoming.discard()
                raise Refused(refusal.MISMATCH, "the instance belongs to another study")
        except Refused:
            self.counts.refused += 1
            raise
        return self.count(arrival)

    def count(self, arrival: Arrival) -> Arrival:
        """Return when an arrival, whose file is flushed, is durable and counts.

        Raises:
            Refused: it is not taken, and gone.
        """
        item = _Waiting(arrival)
        self._waiting.put(item)
        try:
            if not item.done.wait(_WAIT_SECONDS):
                raise Refused(refusal.OUT_OF_RESOURCES, "the server's disk is too slow")
            if item.error is not None:
                raise Refused(getattr(item.error, "status", refusal.PROCESSING_FAILURE),
                              str(item.error)) from item.error  # fmt: skip
        except Refused:
            self.counts.refused += 1
            raise
        return arrival

    def close(self) -> None:
        """Commit what waits and end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        open_ = True
        while open_:
            batch = [self._waiting.get()]
            while len(batch) < _TOGETHER:
                try:
                    batch.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            open_ = None not in batch
            self._commit([item for item in batch if item is not None])
        self.state.close()

    def _commit(self, batch: list[_Waiting]) -> None:
        if not batch:
            return
        try:
            commit(self.state, [item.arrival for item in batch])
        except Exception as error:  # each sender is told, and the next batch is tried
            if not isinstance(error, Refused):
                _LOG.exception("instances could not be committed")
            for item in batch:
                item.error = error
        else:
            self.counts.commits += 1
            self.counts.instances += len(batch)
            self.counts.bytes += sum(item.arrival.size for item in batch)
        for item in batch:
            item.done.set()
