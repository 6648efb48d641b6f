# SPDX-License-Identifier: Apache-2.0
"""Ray as the executor: every way a job can end, nodes that are lost, and nobody who answers.

What starts Ray is marked slow: on a busy machine its own processes may start too slowly for it.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vesalius.errors import MissingDependency, UnavailableError, UsageError
from vesalius.optional import available
from vesalius.tuning import ray_connection
from vesalius.tuning.asha import Asha, Ladder
from vesalius.tuning.journal import Journal
from vesalius.tuning.loop import Loop
from vesalius.tuning.protocol import Job, Outcome
from vesalius.tuning.ray_cluster import Needs, RayCluster
from vesalius.tuning.space import Space
from vesalius.tuning.told import Told
from vesalius.tuning.trial import Objective, Trial

HERE = Path(__file__).parent
GOALS = (Objective("auc", maximize=True),)
SPACE = Space.from_json(
    {"format": "space 1", "parameters": {"x": {"kind": "int", "low": 0, "high": 999}}}
)


def test_an_address_is_host_and_port() -> None:
    assert ray_connection.split_address("10.0.0.5:6379") == ("10.0.0.5", 6379)
    for address in ("10.0.0.5", "host:", ":6379", "host:port", "host:0", "host:70000"):
        with pytest.raises(UsageError, match="HOST:PORT"):
            ray_connection.split_address(address)
    with pytest.raises(UsageError, match="ray:// is not supported"):
        ray_connection.split_address("ray://host:10001")


def test_a_node_takes_what_fits() -> None:
    node = {"CPU": 8.0, "GPU": 2.0, "memory": 1e9, "node:10.0.0.5": 1.0}
    assert Needs().fits(node) == 8
    assert Needs(cpus=3).fits(node) == 2
    assert Needs(cpus=1, gpus=0.5).fits(node) == 4
    assert Needs(cpus=1, gpus=1).fits({"CPU": 8.0}) == 0
    assert Needs(others={"site": 1.0}).fits(node) == 0
    assert Needs(others={"site": 1.0}).fits({**node, "site": 3.0}) == 3


def test_what_is_not_there_is_said_within_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(UnavailableError, match=r"no Ray cluster at 127.0.0.1:1 .*ray start --head"):
        ray_connection._check_answers("127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as mute:  # it listens, and says nothing
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        monkeypatch.setattr(ray_connection, "_ANSWER_SECONDS", 0.5)
        with pytest.raises(UnavailableError, match="does not answer as a Ray head"):
            ray_connection._check_answers(address)


def test_without_ray_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ray_connection._QUIET:  # set by `join`; gone after the test
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependency, match=r'pip install "vesalius\[cluster\]"'):
        RayCluster("toys:toy", address="127.0.0.1:6379")


def wait(cluster: RayCluster, count: int, seconds: float = 240) -> dict[int, Outcome]:
    found: dict[int, Outcome] = {}
    end = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < end:
        found |= {outcome.number: outcome for outcome in cluster.poll(1)}
    return found


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple]:
    """Yield two nodes of two cores and of one, and how an executor on them is made."""
    if not available("ray"):  # not imported: Ray takes its settings from the environment then
        pytest.skip("Ray is absent: pip install 'vesalius[cluster]'")
    from benchmarks.ray_nodes import ray_nodes

    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    opened: list[RayCluster] = []
    with ray_nodes(2, 1) as nodes:
        for name, value in nodes.variables.items():
            monkeypatch.setenv(name, value)

        def make(**given: object) -> RayCluster:
            opened.append(
                RayCluster(
                    "toys:toy", address=nodes.address, environment={"PYTHONPATH": path}, **given
                )
            )
            return opened[-1]

        yield nodes, make
        for cluster in opened:
            cluster.close()


@pytest.mark.slow
def test_each_ending_is_told_apart_as_on_this_machine(joined: tuple, tmp_path: Path) -> None:
    _, make = joined
    cluster: RayCluster = make()
    assert cluster.capacity == cluster.free == 3
    endings = {
        "": ("done", ""),
        "crash": ("crashed", "ValueError: a toy that breaks"),
        "refuse": ("refused", "a toy that says no"),
        "exit": ("crashed", "exit code 3"),
        "segfault": ("crashed", "signal 11"),
        "memory": ("memory", "MemoryError"),
        "killed": ("killed", "was killed"),
    }
    found: dict[int, Outcome] = {}
    for number, deed in enumerate(endings):
        while not cluster.free:
            found |= wait(cluster, 1)
        cluster.submit(Job(number, tmp_path / str(number), {"deed": deed, "bytes": 1 << 50}))
    found |= wait(cluster, len(endings) - len(found))
    for number, (ending, words) in enumerate(endings.values()):
        assert found[number].ending == ending
        assert words in found[number].reason
        assert (found[number].result is not None) == (ending == "done")
    assert "a toy that breaks" in (tmp_path / "1" / "log.txt").read_text()
    sleep = {"deed": "sleep", "seconds": 600}
    cluster.submit(Job(7, tmp_path / "7", {**sleep, "count": str(tmp_path / "begun")}))
    while not (tmp_path / "begun").exists():
        cluster.poll(0.1)
    cluster.cancel(7)
    assert wait(cluster, 1)[7].ending == "cancelled"
    for number in (8, 9, 10):  # as many as fit
        cluster.submit(Job(number, tmp_path / str(number), sleep))
    assert cluster.free == 0
    cluster.cancel(9)  # wherever it is
    assert wait(cluster, 1)[9].ending == "cancelled"
    cluster.close()
    with pytest.raises(UnavailableError, match=r"no node .*has what a trial needs"):
        make(needs=Needs(cpus=64))


@pytest.mark.slow
def test_folders_need_not_be_shared(joined: tuple, tmp_path: Path) -> None:
    cluster: RayCluster = joined[1](shared=False, bounded=False)
    cluster.submit(Job(0, tmp_path / "0", {"auc": 0.75}))
    outcome = wait(cluster, 1)[0]
    assert (outcome.ending, outcome.result["values"]) == ("done", {"auc": 0.75})
    assert not (tmp_path / "0" / "result.json").exists()


@pytest.mark.slow
def test_a_node_that_is_lost_costs_its_running_trials_another_attempt(
    joined: tuple, tmp_path: Path
) -> None:
    nodes, make = joined
    begun = [tmp_path / f"begun-{number}" for number in range(6)]

    def payload(trial: Trial) -> dict:
        first = trial.attempts == 1 and trial.number < 3
        count = str(begun[trial.number])
        return {"deed": "sleep", "seconds": 600 if first else 0, "count": count}

    def lose() -> None:
        while not all(path.exists() for path in begun[:3]):
            time.sleep(0.1)
        nodes.kill(1)

    threading.Thread(target=lose).start()
    with Journal(tmp_path / "journal.jsonl") as journal:
        search = Loop(
            tuner=Asha(SPACE, GOALS, Ladder(1), Told(0)),
            executor=make(),
            journal=journal,
            objectives=GOALS,
            job=lambda trial: Job(trial.number, tmp_path / str(trial.number), payload(trial)),
            smaller=lambda _: None,
        )

        ended: list[int] = []

        def changed(trials: object, number: int) -> None:
            if search.trials[number].attempts == 2 and not ended:  # the others have seen enough
                ended.extend(other for other in range(3) if other != number)
                for other in ended:
                    os.kill(_pid(tmp_path / str(other)), 9)

        search.changed = changed
        trials = search.run(seconds=500, most=6)
    assert [trial.state for trial in trials] == ["done"] * 6
    assert [trial.attempts for trial in trials] == [2, 2, 2, 1, 1, 1]
    assert search.executor.function == "toys:toy"


def _pid(folder: Path) -> int:
    """Return the process that does a folder's job."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"vesalius.tuning.child" in words and str(folder).encode() in words:
                return int(entry.name)
    raise AssertionError(f"nobody does the job of {folder}")


@pytest.mark.slow
def test_a_cluster_of_this_machine_alone_connects_to_nobody(tmp_path: Path) -> None:
    """In a process of its own: Ray's variables are read when it is first imported."""
    import subprocess
    import sys

    if not available("ray"):  # not imported: Ray takes its settings from the environment then
        pytest.skip("Ray is absent: pip install 'vesalius[cluster]'")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from benchmarks.cluster import sockets_outside\n"
        "from vesalius.tuning.protocol import Job\n"
        "from vesalius.tuning.ray_cluster import RayCluster\n"
        "cluster = RayCluster('toys:toy', slots=2)\n"
        "cluster.submit(Job(0, Path(sys.argv[1]), {'auc': 0.75}))\n"
        "found, seen = [], set()\n"
        "while not found:\n"
        "    found = cluster.poll(0.2)\n"
        "    seen |= sockets_outside()\n"
        "cluster.close()\n"
        "print(found[0].result['values']['auc'], sorted(seen))\n"
    )
    path = os.pathsep.join(filter(None, [str(HERE), os.getcwd(), os.environ.get("PYTHONPATH")]))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "0"],
        env={**environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "0.75 []"
