# SPDX-License-Identifier: Apache-2.0
"""A classifier's run as one file, ONNX or OpenVINO's, with the check that it gives its answers.

The graph begins after normalization: its input are views as `tasks.views.make_views` makes
them, of one image a case; a JSON file beside it says how, and names the answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.deployment.graph import write_graph
from vesalius.deployment.openvino import write_openvino
from vesalius.errors import RunError
from vesalius.files import write_json
from vesalius.networks.engine import SUFFIXES, EngineNetwork
from vesalius.types import PathLike

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vesalius.tasks.run import Run

TOLERANCE = 1e-3  # of a probability, between PyTorch and the engine
_PROBES = 5


def export_classifier(run: Run, path: PathLike) -> Path:
    """Write the run's mixture to `path` and return it; `<path>.json` holds plan and normalizer.

    Args:
        run: a finished classifier's.
        path: ends in `.onnx`, or in `.xml` for OpenVINO, whose weights lie beside it in `.bin`.

    Raises:
        RunError: the run is no finished classifier, or the file does not give its answers.
        UsageError: a member that cannot be exported.
        MissingDependency: a library of the engine is absent.
    """
    import torch

    from vesalius.tasks.classify.graph import MixtureGraph
    from vesalius.tasks.classify.predict import Classifier

    classifier = Classifier.load(run)
    graph = MixtureGraph(classifier).eval()
    shape = run.decisions["input"]
    views = torch.randn(_PROBES, shape["channels"], *[shape["size"]] * shape["spatial_dims"])
    target = Path(path)
    written = write_graph(graph, views, target.with_suffix(".onnx"), given="views", got="answers")
    if target.suffix == SUFFIXES["openvino"]:
        write_openvino(written, target)
        written.unlink()
    try:
        worst = _largest_difference(graph, EngineNetwork(target, half=False), views)
    except RunError as error:
        _remove(target)
        raise RunError(
            f"the run '{run.path}' cannot be exported for any number of images: one of its members "
            "was fixed to one number; train with a network's name"
        ) from error
    if worst > TOLERANCE:
        _remove(target)
        raise RunError(f"the exported file's answers differ by {worst:.2g} from the run's")
    write_json(
        target.with_name(target.name + ".json"),
        {
            "run": run.id,
            "target": run.decisions["target"],
            "input": shape,
            "normalizer": run.normalizer().to_json(),
            "largest_difference": worst,
        },
    )
    return target


def _largest_difference(graph: nn.Module, engine: EngineNetwork, views: Tensor) -> float:
    """Return how far the answers are apart, of all views at once and of the first alone."""
    import torch

    with torch.inference_mode():
        expected = graph(views)
        parts = (views, views[:1])
        return max(float((engine(x) - expected[: len(x)]).abs().max()) for x in parts)


def _remove(target: Path) -> None:
    for path in {target, target.with_suffix(".bin")}:
        path.unlink(missing_ok=True)
