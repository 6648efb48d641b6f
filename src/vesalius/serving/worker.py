# SPDX-License-Identifier: Apache-2.0
"""One job: a run applied to a study's images by the very code of `vesalius predict` (law 4).

What answers is handed in. Its DICOM objects become instances of the state, in one transaction with
the end of the job and the beginning of their way to the PACS: after any kill the job is either not
done and nothing of it is held, or done and all of it is.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vesalius.errors import BudgetError, DataError, UsageError
from vesalius.serving import queue
from vesalius.serving.queue import Job, LeaseLost
from vesalius.serving.stamp import encoded, stamped
from vesalius.serving.state import State
from vesalius.serving.store import RESULT, Arrival, Incoming, commit, path_of
from vesalius.types import Json

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

_LOG = logging.getLogger(__name__)
_IDLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Answered:
    """What a run said of one exam: its DICOM objects, and all of it as JSON without paths."""

    objects: Sequence[Path]
    answer: Json


class Predict(Protocol):
    """Applies a run to an exam, offline.

    A `DataError` says that the exam cannot serve, with the reason; trying again is useless.
    """

    def __call__(self, run: Path, exam: Path, out: Path) -> Answered:
        """Answer for the DICOM files in the folder `exam`; write below the folder `out`."""


def work(
    state: State,
    predict: Predict,
    *,
    targets: Sequence[str] = (),
    stop: Callable[[], bool] = lambda: False,
    wait: Callable[[float], object],
) -> None:
    """Do jobs until `stop` says so.

    Args:
        state: the state.
        predict: applies a run.
        targets: names of what results are pushed to.
        stop: is asked between jobs.
        wait: is called with seconds when there is nothing to do.
    """
    while not stop():
        if not work_once(state, predict, targets=targets):
            wait(_IDLE_SECONDS)


def work_once(state: State, predict: Predict, *, targets: Sequence[str] = ()) -> bool:
    """Do one job; False where there is none."""
    job = queue.lease(state, "predict", owner=str(os.getpid()))
    if job is None:
        return False
    folder = state.folder / "work" / f"{job.id}-{job.lease}"
    try:
        with _kept(state, job):
            _answer(state, job, predict, folder, targets)
    except LeaseLost:
        _LOG.warning("job %d went to another worker", job.id)
    except (DataError, UsageError) as error:
        _give(queue.refuse, state, job, _plain(error, folder))
    except BudgetError as error:
        _give(queue.fail, state, job, _plain(error, folder))
    except Exception as error:
        _LOG.error("job %d failed: %s", job.id, type(error).__name__)
        _give(queue.fail, state, job, f"{type(error).__name__} in the run")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return True


def _answer(state: State, job: Job, predict: Predict, folder: Path, targets: Sequence[str]) -> None:
    exam, out = folder / "exam", folder / "out"
    exam.mkdir(parents=True)
    out.mkdir()
    _lay_out(state, job.subject["inputs"], exam)
    found = predict(Path(job.subject["run"]), exam, out)
    key = _key(state, job)
    run = f"{job.subject['task']} run {job.subject['run_id']}"
    arrivals = [_arrive(state, path, key, number, run) for number, path in enumerate(found.objects)]

    def done(connection: sqlite3.Connection) -> None:
        now = state.clock.now()
        answer = {**found.answer, "objects": [one.attributes.sop_uid for one in arrivals]}
        queue.finish(connection, job, now=now, answer=answer)
        for one in arrivals:
            for target in targets:
                queue.add(
                    connection,
                    kind="push",
                    key=f"push {target} {one.sha256}",
                    study_uid=job.study_uid,
                    subject={"target": target, "sha256": one.sha256},
                    now=now,
                )

    commit(state, arrivals, also=done)


def _lay_out(state: State, inputs: Sequence[str], exam: Path) -> None:
    """Show the inputs as files that are named by series and instance number, for messages."""
    for sha256 in inputs:
        row = state.connection().execute(
            "SELECT i.folder, i.number, s.number FROM instances i JOIN series s "
            "USING (study_uid, series_uid) WHERE i.sha256 = ?",
            (sha256,),
        ).fetchone()  # fmt: skip
        if row is None:
            raise DataError("an instance of the study is gone from the state")
        folder, number, series = row
        name = f"series-{series or 0}-instance-{number or 0}-{sha256[:8]}.dcm"
        os.symlink(path_of(state, folder, sha256).resolve(), exam / name)


def _arrive(state: State, path: Path, key: str, number: int, run: str) -> Arrival:
    data_set = stamped(path, key=key, number=number, made_by=run)
    incoming = Incoming(
        state,
        sop_class=str(data_set.SOPClassUID),
        sop_uid=str(data_set.SOPInstanceUID),
        transfer_syntax=str(data_set.file_meta.TransferSyntaxUID),
    )
    incoming.write(encoded(data_set))
    return incoming.arrive(RESULT)


def _key(state: State, job: Job) -> str:
    (key,) = state.connection().execute("SELECT key FROM jobs WHERE id = ?", (job.id,)).fetchone()
    return str(key)


@contextmanager
def _kept(state: State, job: Job) -> Iterator[None]:
    """Renew the lease while the work goes on."""
    end = threading.Event()

    def renew() -> None:
        while not end.wait(queue.LEASE_SECONDS / 3):
            try:
                queue.renew(state, job)
            except LeaseLost:
                break  # the end of the job will find out
        state.close()

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def _give(act: Callable[[State, Job, str], None], state: State, job: Job, reason: str) -> None:
    """End a job, unless another worker has it by now."""
    try:
        act(state, job, reason)
    except LeaseLost:
        _LOG.warning("a job went to another worker before its end")


def _plain(error: Exception, folder: Path) -> str:
    """Return an error's words without the folder of the work."""
    return str(error).replace(f"{folder / 'exam'}/", "").replace(str(folder), "the exam")
