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

from vesalius.errors import BudgetError, DataError, RunError, UsageError
from vesalius.serving import drift_keeping, drift_watch, golden_watch, queue, results, shadow
from vesalius.serving.drift_facts import Facts
from vesalius.serving.queue import Job, LeaseLost
from vesalius.serving.stamp import encoded, stamped
from vesalius.serving.state import State
from vesalius.serving.store import FILE, RESULT, Arrival, Incoming, commit, path_of
from vesalius.types import Json

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

_LOG = logging.getLogger(__name__)
_IDLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Answered:
    """What a run said of one exam.

    Attributes:
        objects: DICOM files; their names tell them from each other, the same each time.
        answer: all of it as JSON, without paths.
        files: other results.
    """

    objects: Sequence[Path]
    answer: Json
    files: Sequence[Path] = ()


class Predict(Protocol):
    """Applies a run to an exam, offline.

    A `DataError` says that the exam cannot serve, with the reason; trying again is useless.
    """

    def __call__(self, run: Path, exam: Path, out: Path, *, modality: str = "") -> Answered:
        """Answer for the files in the folder `exam`; write below the folder `out`.

        `modality` is that of images that do not state theirs.
        """


def work(
    state: State,
    predict: Predict,
    *,
    targets: Sequence[str] = (),
    stop: Callable[[], bool] = lambda: False,
    wait: Callable[[float], object],
    before: Sequence[Callable[[State], bool]] = (),
    after: Sequence[Callable[[State], bool]] = (),
) -> None:
    """Do jobs until `stop` says so.

    Args:
        state: the state.
        predict: applies a run.
        targets: names of what results are pushed to.
        stop: is asked between jobs.
        wait: is called with seconds when there is nothing to do.
        before, after: other kinds of work, more and less urgent than studies; each does one job
            and says whether there was one.
    """

    def study(state: State) -> bool:
        return work_once(state, predict, targets=targets)

    while not stop():
        if not any(kind(state) for kind in (*before, study, *after)):
            wait(_IDLE_SECONDS)


def work_once(state: State, predict: Predict, *, targets: Sequence[str] = ()) -> bool:
    """Apply a run to one study; False where there is none."""
    seen: list[tuple[Job, Facts]] = []

    def do(job: Job, folder: Path) -> None:
        exam = folder / "exam"
        exam.mkdir(parents=True)
        lay_out(state, job.subject["inputs"], exam)
        facts = drift_keeping.of_images(state, exam)
        try:
            _answer(state, job, predict, folder, targets, facts)
        except RunError as error:  # no fault of the study, which waits where the run is damaged
            golden_watch.ask(state, str(job.subject.get("rule", "")))
            raise RuntimeError("the run cannot be loaded") from error
        except (DataError, UsageError):
            with state.transaction() as connection:
                drift_watch.keep(connection, job.subject, facts.refused(), state.clock.now())
            seen.append((job, facts))
            raise
        seen.append((job, facts))

    did = once(state, "predict", do)
    for job, facts in seen:
        drift_keeping.look(state, job, facts)
    return did


def once(state: State, kind: str, do: Callable[[Job, Path], Json | None]) -> bool:
    """Do one job of a kind; False where there is none.

    Args:
        state: the state.
        kind: of the queue.
        do: does the job, in a folder that it may make and that is removed afterwards. What it
            returns is the job's answer; None: it has ended the job itself.
    """
    job = queue.lease(state, kind, owner=str(os.getpid()))
    if job is None:
        return False
    folder = state.folder / "work" / f"{job.id}-{job.lease}"
    try:
        with _kept(state, job):
            answer = do(job, folder)
        if answer is not None:
            with state.transaction() as connection:
                queue.finish(connection, job, now=state.clock.now(), answer=answer)
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


def _answer(
    state: State,
    job: Job,
    predict: Predict,
    folder: Path,
    targets: Sequence[str],
    facts: Facts,
) -> None:
    out = folder / "out"
    out.mkdir()
    stated = stated_modality(state, job)
    more = {"modality": stated} if stated else {}
    found = predict(Path(job.subject["run"]), folder / "exam", out, **more)
    key = _key(state, job)
    run = f"{job.subject['task']} run {job.subject['run_id']}"
    arrivals = [_arrive(state, path, key, run) for path in found.objects]
    kept = [results.keep(state, path) for path in found.files]
    seen = drift_keeping.with_answer(facts, found.answer)

    def done(connection: sqlite3.Connection) -> None:
        now = state.clock.now()
        answer = {**found.answer, "objects": [one.attributes.sop_uid for one in arrivals]}
        if kept:
            answer["files"] = kept
        queue.finish(connection, job, now=now, answer=answer)
        shadow.ask(connection, job, now)
        drift_watch.keep(connection, job.subject, seen, now)
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


def lay_out(state: State, inputs: Sequence[str], exam: Path) -> None:
    """Show the inputs as files that are named by series and instance number, for messages.

    An image that is no DICOM has the suffix of its format.
    """
    for sha256 in inputs:
        row = state.connection().execute(
            "SELECT i.folder, i.number, s.number, i.origin, i.transfer_syntax "
            "FROM instances i JOIN series s "
            "USING (study_uid, series_uid) WHERE i.sha256 = ?",
            (sha256,),
        ).fetchone()  # fmt: skip
        if row is None:
            raise DataError("an instance of the study is gone from the state")
        folder, number, series, origin, syntax = row
        suffix = syntax if origin == FILE else "dcm"
        name = f"series-{series or 0}-instance-{number or 0}-{sha256[:8]}.{suffix}"
        os.symlink(path_of(state, folder, sha256).resolve(), exam / name)


def stated_modality(state: State, job: Job) -> str:
    """Return what a sender said of images that do not say it themselves; of DICOM, nothing."""
    rows = state.connection().execute(
        "SELECT DISTINCT s.modality FROM instances i JOIN series s USING (study_uid, series_uid) "
        "WHERE i.study_uid = ? AND i.origin = ?",
        (job.study_uid, FILE),
    ).fetchall()  # fmt: skip
    return str(rows[0][0]) if len(rows) == 1 else ""


def _arrive(state: State, path: Path, key: str, run: str) -> Arrival:
    data_set = stamped(path, key=key, which=path.stem, made_by=run)
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
