# SPDX-License-Identifier: Apache-2.0
"""A run: the folder that holds one trained model and everything that led to it.

```
plan.json            every decision, derived from the data before training; the run's identity
split.json           which image lies in which subset
normalizer.json      fitted on training rows
model.safetensors    best weights by validation
metrics.json         scores per subset, with intervals and baselines
predictions.parquet  one row a case
log.jsonl            loss and validation by step
checkpoint/          state from which training resumes
```
Nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vesalius.errors import RunError
from vesalius.files import read_json, write_atomically, write_json
from vesalius.normalization import Normalizer
from vesalius.types import Json, PathLike

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
EXPORT = "export.json"  # is there in a folder that `vesalius export` made of a run
_VERSIONS = ("vesalius", "torch", "numpy", "lightning-fabric", "pydicom", "nibabel")


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder and its plan."""

    path: Path
    plan: Json

    @classmethod
    def load(cls, path: PathLike, *, exported: bool = False) -> Self:
        """Open a run folder, offline.

        Args:
            path: of the folder.
            exported: take a folder that `vesalius export` made of a run, too.

        Raises:
            RunError: no run folder, or one of another format.
        """
        folder = Path(path)
        if (folder / EXPORT).exists() and not exported:
            raise RunError(
                f"'{folder}' is the export of a run and holds only what `vesalius predict` needs; "
                "give the run that it was made from"
            )
        try:
            plan = read_json(folder / "plan.json")
        except (OSError, ValueError) as error:
            raise RunError(
                f"'{folder}' is no run folder ({type(error).__name__} at plan.json); give the "
                "folder that `vesalius train` printed"
            ) from error
        if not isinstance(plan, dict) or plan.get("format") != FORMAT:
            raise RunError(
                f"the plan of '{folder}' must have format {FORMAT}; load it with the version of "
                "Vesalius that wrote it"
            )
        return cls(folder, plan)

    @property
    def id(self) -> str:
        """The hash of the plan: same decisions, data and seed, same hash."""
        return str(self.plan["id"])

    @property
    def task(self) -> str:
        """`classify` or `segment`."""
        return str(self.plan["task"])

    @property
    def decisions(self) -> Json:
        """What the plan decided."""
        decisions: Json = self.plan["decisions"]
        return decisions

    @property
    def finished(self) -> bool:
        """Whether training and its validation are complete."""
        return bool(self.plan["measured"].get("finished"))

    @property
    def metrics(self) -> Json:
        """The content of `metrics.json`, empty before the first validation."""
        path = self.path / "metrics.json"
        return read_json(path) if path.exists() else {}

    @property
    def exported(self) -> bool:
        """Whether this is what `vesalius export` made of a run."""
        return (self.path / EXPORT).exists()

    def audit(self) -> list[str]:
        """Return, line by line, what was grouped, left out and decided."""
        return [str(line) for line in self.plan["audit"]]

    def normalizer(self) -> Normalizer:
        """Return the normalizer that was fitted on the training rows."""
        return Normalizer.from_json(self._record("normalizer.json"))

    def subsets(self) -> dict[str, str]:
        """Return image key -> `train`, `val` or `test`."""
        return dict(self._record("split.json")["rows"])

    def weights(self) -> dict[str, Any]:
        """Return the tensors of `model.safetensors`."""
        from vesalius.training.checkpoint import load_tensors

        return load_tensors(self.path / "model.safetensors")[0]

    def measure(self, **values: Any) -> Self:
        """Write measured facts (steps, seconds) into the plan and return the run with them."""
        plan = {**self.plan, "measured": {**self.plan["measured"], **values}}
        write_json(self.path / "plan.json", plan)
        return type(self)(self.path, plan)

    def note(self, *lines: str) -> Self:
        """Append lines to the plan's audit and return the run with them."""
        fresh = [line for line in lines if line not in self.plan["audit"]]
        plan = {**self.plan, "audit": [*self.plan["audit"], *fresh]}
        write_json(self.path / "plan.json", plan)
        return type(self)(self.path, plan)

    def write_metrics(self, split: str, summary: Json) -> Json:
        """Put one subset's scores into `metrics.json` and return the whole."""
        names: Json = {
            key: self.decisions[key] for key in ("classes", "labels") if key in self.decisions
        }
        metrics = self.metrics or {"task": self.task, "target": self.plan["target"], **names}
        metrics["splits"] = {**metrics.get("splits", {}), split: summary}
        metrics["scored"] = split  # last
        write_json(self.path / "metrics.json", metrics)
        return metrics

    def write_predictions(self, split: str, rows: list[Json]) -> None:
        """Replace one subset's rows of `predictions.parquet`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.path / "predictions.parquet"
        table = pa.Table.from_pylist(rows)
        if path.exists():
            old = pq.read_table(path)
            keep = [subset != split for subset in old.column("split").to_pylist()]
            table = pa.concat_tables(
                [old.filter(pa.array(keep)), table], promote_options="permissive"
            )
        write_atomically(path, lambda stream: pq.write_table(table, stream))

    def predictions(self) -> pa.Table:
        """Return `predictions.parquet`."""
        import pyarrow.parquet as pq

        return pq.read_table(self.path / "predictions.parquet")

    def _record(self, name: str) -> Json:
        try:
            record: Json = read_json(self.path / name)
        except (OSError, ValueError) as error:
            raise RunError(
                f"the run '{self.path}' lacks a readable {name}; finish its training with the "
                "same command"
            ) from error
        return record


def plan_id(plan: Json) -> str:
    """Return the hash of what makes a plan: task, target, seed, decisions and data."""
    held = {name: plan[name] for name in ("task", "target", "seed", "decisions")}
    held["data"] = [plan["cohort"]["digest"], plan["split_digest"]]
    text = json.dumps(held, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_run(request: Json, out: Path | None, *, below: Path = Path("runs")) -> Run | None:
    """Return the run that the same request started earlier, or None.

    Raises:
        RunError: `out` holds another run.
    """
    folders = [out] if out is not None else sorted(below.glob(f"{request['task']}-*"))
    for folder in folders:
        if not (folder / "plan.json").exists():
            continue
        run = Run.load(folder)
        if run.plan["request"] == request:
            return run
        if out is not None:
            changed = [k for k in request if request[k] != run.plan["request"].get(k)]
            raise RunError(
                f"'{out}' holds another run ({run.task}-{run.id[:8]}; different: "
                f"{', '.join(changed) or 'format'}); choose another --out, or remove the folder"
            )
    return None


def start_run(plan: Json, out: Path | None, *, below: Path = Path("runs")) -> Run:
    """Write the plan of a new run and return it; the split and the training come after."""
    plan = {"format": FORMAT, "id": plan_id(plan), **plan, "versions": _versions()}
    folder = out if out is not None else below / f"{plan['task']}-{plan['id'][:8]}"
    write_json(folder / "plan.json", plan)
    return Run(folder, plan)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # a source tree on the path
            found[name] = "source"
    return found
