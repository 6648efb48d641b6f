# SPDX-License-Identifier: Apache-2.0
"""`vesalius search`: many plans tried in the minutes given, the best trades kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import UsageError
from vesalius.types import PathLike, Task

if TYPE_CHECKING:
    from vesalius.flows.searching.result import SearchResult

SHARE = 12.0  # a network that is trained in full takes about one of so many parts of the minutes


def search(
    task: Task | None = None,
    cohort: PathLike | None = None,
    *,
    minutes: float | None = None,
    target: str | None = None,
    target_kind: str = "auto",
    case: str = "auto",
    steps: int | None = None,
    max_latency: float | None = None,
    device: str = "auto",
    max_memory: int | None = None,
    max_size: int | None = None,
    disk: int | None = None,
    on: str = "local",
    address: str | None = None,
    workers: int | None = None,
    trial_cpus: int = 1,
    trial_gpus: float = 0.0,
    journal: str | None = None,
    artifacts: str | None = None,
    endpoint: str | None = None,
    trials: int | None = None,
    space: PathLike | None = None,
    tuner: str = "ours",
    start: PathLike | None = None,
    out: PathLike | None = None,
    resume: PathLike | None = None,
    where: str | None = None,
    split: PathLike | None = None,
    ungrouped_split: bool = False,
    seed: int = 0,
    say: Callable[[SearchResult], None] | None = None,
    command: str = "",
) -> SearchResult:
    """Search for the best trade between quality and cost, and return what was found.

    Every trial is an edited plan that is trained in a process of its own, and named by the plan's
    hash; it is scored on validation cases. Some cases are set apart before, which no trial sees:
    the winner is confirmed on them. Test cases are not touched. The same call after an interruption
    goes on where it stopped.

    Args:
        task: `classify` or `segment`.
        cohort: folder of a cohort.
        minutes: wall minutes for everything, 60 where none are given; of a search that is resumed,
            those of all its sessions together.
        target, target_kind, case, where, split, ungrouped_split, seed: as in `train`.
        steps: of a network that is trained in full; by default as many as take a twelfth of the
            minutes. Cheaper trials take a ninth and a third of them.
        max_latency: seconds that an answer for one case may take, files read, in the median.
        device: on which latency is measured: `auto`, where a run answers by itself, or `cpu`.
        max_memory: bytes that a process may take which answers.
        max_size: bytes that a run's files may take which answering needs.
        disk: bytes for the weights of all trials; those of the best and of the front stay.
        on: `local` processes, or `ray`, a cluster.
        address: of the Ray cluster, `HOST:PORT` of its head; default `RAY_ADDRESS`, or else a
            cluster of this machine alone.
        workers: trials at once. Here one by default, and the cores are shared out; on Ray as many
            as the nodes take.
        trial_cpus, trial_gpus: what each trial takes of a node, on Ray.
        journal: `postgresql://USER@HOST/DATABASE` for the search's journal; default its own file.
        artifacts: `s3://BUCKET/PREFIX` for what trials make, where the machines do not all see the
            search's folder.
        endpoint: of the S3 API; default that of AWS.
        trials: at most so many.
        space: file of the parameters to search, edited; every search writes its own as
            `space.json`.
        tuner: `ours`, or a baseline: `random`, `tpe`, `asha`.
        start: an earlier search, of whatever data, whose best points are tried early.
        out: folder of the search; default `searches/<task>-<hash of what is asked>`.
        resume: folder of a search to go on with; it says all of the above but `minutes`, `trials`
            and the machines, from `on` to `trial_gpus`.
        say: called with the search as it stands whenever a trial begins or ends.
        command: the exact command, for the report; default this call.

    Raises:
        UsageError: a wrong argument, an unknown parameter of the space, another process at it.
        CohortError: the cohort has no label, or too few cases.
        BudgetError: the minutes suffice for nothing, or the disk is full.
        RunError: `out` holds another search, or no trial came to anything.
        UnavailableError: the cluster, the database or the store does not answer.
        MissingDependency: Ray, psycopg or boto3 is absent.
    """
    started = time.monotonic()
    from vesalius.flows.searching.machines import Machines
    from vesalius.flows.searching.request import MINUTES, Asked, asked_of
    from vesalius.flows.searching.session import Session

    if resume is None and (task is None or cohort is None):
        raise UsageError("search needs a task and a cohort, or --resume with a search's folder")
    share = None if steps is not None else (MINUTES if minutes is None else minutes) / SHARE
    asked = Asked(
        task=task or "",
        cohort="" if cohort is None else str(Path(cohort).absolute()),
        target=target,
        target_kind=target_kind,
        case=case,
        steps=steps,
        share=share,
        max_latency=max_latency,
        device=device,
        max_memory=max_memory,
        max_size=max_size,
        disk=disk,
        space="" if space is None else _text(space),
        tuner=tuner,
        start=None if start is None else str(Path(start).absolute()),
        where=where,
        split=None if split is None else str(Path(split).absolute()),
        ungrouped_split=ungrouped_split,
        seed=seed,
    )
    if resume is not None:
        given = asked.differing(Asked(task="", cohort="", share=share))
        if given or out is not None:
            raise UsageError(
                f"a search that is resumed says {', '.join(given or ['out'])}; leave it out, or "
                "begin another search"
            )
        asked, folder = asked_of(resume), Path(resume)
    else:
        asked.check()
        folder = Path(out) if out is not None else Path("searches") / f"{task}-{asked.digest()[:8]}"
    machines = Machines(
        on=on,
        address=address,
        workers=workers,
        cpus=trial_cpus,
        gpus=trial_gpus,
        journal=journal,
        artifacts=artifacts,
        endpoint=endpoint,
    )
    return Session(asked, folder, machines, say=say, command=command).run(
        started=started, minutes=minutes, most=trials
    )


def _text(space: PathLike) -> str:
    try:
        return Path(space).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"the space {space} cannot be read: {error}") from error
