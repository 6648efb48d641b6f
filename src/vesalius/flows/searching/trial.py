# SPDX-License-Identifier: Apache-2.0
"""One trial of a search, in a process of its own: a plan, edited, trained, and measured.

The run is named by its plan's hash, so that a plan that was trained before costs nothing, and one
that was interrupted goes on.
"""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import RunError
from vesalius.files import read_json, write_json
from vesalius.flows.planning.memory import held_memory
from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.flows.planning.draft import Data
    from vesalius.tasks.run import Run

FUNCTION = "vesalius.flows.searching.trial:run_trial"
PLAN, COST = "planned.json", "serving_cost.json"


def run_trial(payload: Json) -> Json:
    """Train and measure a point of the space.

    Args:
        payload: `search` (folder), `cohort` (folder), `asked` (arguments of a plan), `quality`
            (score), `device` (of the latency), `parameters`, `steps`; `artifacts` where the folder
            is another machine's, see `artifacts.Artifacts`.

    Returns:
        `values` by objective, `plan` (hash), `curve` of the validations, `facts`.
    """
    from vesalius.flows.searching.artifacts import artifacts_of
    from vesalius.flows.searching.task import of_task
    from vesalius.tasks.run import plan_id
    from vesalius.training.device import place
    from vesalius.tuning.lock import alone

    begun, work = time.monotonic(), time.process_time()
    place()
    for module in of_task(payload["asked"]["task"]).ANSWERING:
        importlib.import_module(module)
    idle = held_memory()
    artifacts = artifacts_of(payload["artifacts"])
    payload = artifacts.here(payload)
    search = Path(payload["search"])
    data, planned = _plan(payload)
    name = plan_id(planned)
    folder = search / "runs" / name
    with alone(search / "locks" / name), artifacts.mirrored(folder):
        run = _trained(data, planned, folder, search / "shared")
        cost = _cost(run, data, payload["device"], idle)
    return {
        "values": {payload["quality"]: _quality(run, payload["quality"]), **cost},
        "plan": name,
        "curve": _curve(run),
        "facts": {
            "seconds": run.plan["measured"]["seconds"],
            "slowdown": _slowdown(time.monotonic() - begun, time.process_time() - work),
        },
    }


def _slowdown(seconds: float, work: float) -> float:
    """Return how much longer things take than they would with a core of their own."""
    return round(max(1.0, seconds / work), 2) if work > 0 else 1.0


def _plan(payload: Json) -> tuple[Data, Json]:
    """Return the data and the edited plan; the request names it, as `vesalius.train` would."""
    from vesalius.flows.plan import FORMAT
    from vesalius.flows.planning.asked import Asked
    from vesalius.flows.planning.draft import draft, gather
    from vesalius.flows.planning.edits import with_decisions
    from vesalius.flows.searching.task import of_task
    from vesalius.tasks.run import plan_id

    parameters = payload["parameters"]
    task = of_task(payload["asked"]["task"])
    model = task.planned_model(parameters)
    asked = Asked(**payload["asked"], steps=payload["steps"], model=model)
    data = gather(asked, payload["cohort"])
    drafted = draft(data)
    held: Json = json.loads(json.dumps(drafted))
    held["decisions"] = task.edited(held["decisions"], parameters)
    held = {"format": FORMAT, "id": plan_id(held), **held}
    data.request["plan"] = held["id"]
    return data, {**with_decisions(drafted, held), "as_file": held}


def _trained(data: Data, planned: Json, folder: Path, shared: Path) -> Run:
    """Return the finished run of a plan, trained now or before; without its report."""
    from vesalius.flows.searching.task import of_task
    from vesalius.flows.seen_images import remember
    from vesalius.tasks.run import find_run, start_run

    started = time.monotonic()
    held = planned.pop("as_file")
    run = find_run(data.request, folder)
    if run is None:
        plan = {**planned, "measured": {}, "command": f"vesalius train … --plan {PLAN}"}
        write_json(folder / PLAN, held)
        run = start_run(plan, folder)
    if run.finished:
        return run
    if not (folder / "split.json").exists():
        remember(run, data.cohort, data.split)
        data.split.save(folder / "split.json")
    run = of_task(run.task).train(run, data, shared, started)
    return run.measure(seconds=round(time.monotonic() - started, 1))


def _cost(run: Run, data: Data, device: str, idle: int) -> dict[str, float]:
    """Return what using the run costs, measured now or before."""
    from vesalius.flows.searching.serving_cost import measure

    path = run.path / COST
    if not path.exists():
        found = measure(run, data.cohort, data.subset("val"), device=device, idle=idle)
        write_json(path, found)
    held: dict[str, float] = read_json(path)
    return held


def _quality(run: Run, name: str) -> float:
    """Return the score on validation cases."""
    from vesalius.flows.searching.quality import score_of

    score = score_of(run.metrics, "val", name)
    if score["value"] is None:
        raise RunError(f"the {name} of the validation cases is undefined: {score['note']}")
    return float(score["value"])


def _curve(run: Run) -> list[list[float]]:
    """Return `(step, score)` of the first network's validations; empty where none was trained."""
    from vesalius.training.log import read_log

    for path in [*run.path.glob("log.jsonl"), *sorted(run.path.glob("networks/*/log.jsonl"))]:
        checks = [e for e in read_log(path) if e["event"] == "validation"]
        return [[float(e["step"]), float(e["scores"]["score"])] for e in checks]
    return []
