# SPDX-License-Identifier: Apache-2.0
"""A segmenter's run as a folder for production: the network in an engine's file, no training data.

`vesalius predict` takes the folder in place of the run, and does around the network what it does
for the run. Nothing is kept that does not answer as the run does.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vesalius.deployment import proof
from vesalius.deployment.graph import write_graph
from vesalius.deployment.int8 import quantize
from vesalius.deployment.openvino import write_openvino
from vesalius.deployment.samples import Samples
from vesalius.files import fsync_folder, fsync_tree, write_json
from vesalius.networks.engine import SUFFIXES
from vesalius.tasks.run import EXPORT, Run
from vesalius.tasks.segment.exported import digest_of
from vesalius.tasks.segment.locate import RECORD, WEIGHTS
from vesalius.tasks.segment.predict import Segmenter
from vesalius.tasks.segment.scoring import load_quality
from vesalius.types import Json, Progress

PATCHES = 128  # that calibrate int8
_GIVEN, _GOT = "patches", "logits"
_PLAN = ("format", "id", "task", "target", "fingerprint", "decisions", "versions")
_FILES = ("normalizer.json", "quality.json", "postprocessing.json", "card.md", RECORD, WEIGHTS)
_TOOLS = {"onnx": ("onnxruntime",), "openvino": ("openvino", "nncf")}


def export_segmenter(
    run: Run,
    folder: Path,
    *,
    to: str,
    int8: bool = False,
    samples: Samples | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the run for an engine into `folder`, which is not there or empty, and return it.

    Args:
        run: finished.
        folder: for the export.
        to: `onnx` or `openvino`.
        int8: compute in 8-bit integers; `samples` are needed.
        samples: images on which the label maps of both are compared, too.
        progress: called as `progress(stage, done, total)`.

    Raises:
        RunError: the run is none of a segmenter, its network has no such graph, the answers are
            not the run's, or int8 costs too much of the Dice score. Nothing is left in `folder`.
        MissingDependency: a library of the engine is absent.
    """
    exact = Segmenter.load(_exact(run))
    load_quality(run)
    with _new_folder(folder) as work:
        path = work / f"network{SUFFIXES[to]}"
        graph = write_graph(
            exact.model, proof.some_patches(run.decisions), work / "network.onnx",
            given=_GIVEN, got=_GOT,
        )  # fmt: skip
        if to == "openvino":
            write_openvino(graph, path)
            graph.unlink()
        for name in _FILES:
            if (run.path / name).exists():
                shutil.copyfile(run.path / name, work / name)
        license_ = run.plan["cohort"]["license"]
        plan = {name: run.plan[name] for name in _PLAN}
        write_json(
            work / "plan.json", {**plan, "license": license_, "measured": {"finished": True}}
        )
        record = {"to": to, "precision": "fp32", "made_with": _versions(to)}
        engine = Segmenter.load(_exact(_record(work, record)))
        record["proof"] = proof.prove(exact, engine, samples, progress)
        if int8:
            assert samples is not None  # noqa: S101 - the flow asked for them
            patches = samples.patches(PATCHES)
            quantize(path, patches, given=_GIVEN)
            record |= {"precision": "int8"}
            small = Segmenter.load(_record(work, record))
            record["int8"] = {
                "patches": len(patches),
                **proof.int8_scores(engine, small, samples, progress),
            }
        _record(work, record)
    return folder


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder beside `folder` that takes its place at the end, or goes if there is none."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        yield work
        work.chmod(0o755)
        fsync_tree(work)
        work.replace(folder)
    except BaseException:
        shutil.rmtree(work)
        raise
    fsync_folder(folder.parent)


def _record(work: Path, record: Json) -> Run:
    """Write what the folder holds and return it as a run."""
    files = {path.name: digest_of(path) for path in sorted(work.glob("network.*"))}
    write_json(work / EXPORT, {**record, "files": files})
    return Run.load(work, exported=True)


def _exact(run: Run) -> Run:
    """Return a run that computes in 32 bits."""
    decisions = {**run.decisions, "precision": "32-true"}
    return Run(run.path, {**run.plan, "decisions": decisions})


def _versions(to: str) -> dict[str, str]:
    found = {}
    for name in ("vesalius", "torch", "onnx", *_TOOLS[to]):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # NNCF serves int8 alone; a source tree
            continue
    return found
