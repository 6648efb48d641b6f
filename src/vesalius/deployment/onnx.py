# SPDX-License-Identifier: Apache-2.0
"""A classifier's run as one ONNX file (onnx.ai), with the check that it gives the same answers.

The graph begins after normalization: its input are views as `tasks.classify.views.make_views` makes
them, of one image a case; a JSON file beside it says how, and names the answers.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vesalius.errors import RunError
from vesalius.files import write_json
from vesalius.optional import require
from vesalius.types import PathLike

if TYPE_CHECKING:
    from vesalius.tasks.run import Run

TOLERANCE = 1e-3  # of a probability, between PyTorch and ONNX Runtime
_OPSET = 18
_PROBES = 5


def export_classifier(run: Run, path: PathLike) -> Path:
    """Write the run's mixture to `path` and return it; `<path>.json` holds plan and normalizer.

    Raises:
        RunError: the run is no finished classifier, or the file does not give its answers.
        UsageError: a member that cannot be exported.
        MissingDependency: onnx or onnxruntime is absent.
    """
    import torch

    from vesalius.tasks.classify.graph import MixtureGraph
    from vesalius.tasks.classify.predict import Classifier

    require("onnxscript", "exporting to ONNX")
    runtime = require("onnxruntime", "checking an exported model")
    classifier = Classifier.load(run)
    graph = MixtureGraph(classifier).eval()
    shape = run.decisions["input"]
    views = torch.randn(_PROBES, shape["channels"], *[shape["size"]] * shape["spatial_dims"])
    target = Path(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own ways
        program = torch.onnx.export(
            graph,
            (views,),
            dynamo=True,
            input_names=["views"],
            output_names=["answers"],
            dynamic_shapes=({0: torch.export.Dim("n", min=1, max=4096)},),
            opset_version=_OPSET,
            verbose=False,
        )
    if program is None:
        raise RunError(f"the run '{run.path}' could not be exported")
    program.save(str(target))
    session = runtime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = graph(views).numpy()
    try:
        worst = max(
            float(np.abs(session.run(None, {"views": part.numpy()})[0] - expected[rows]).max())
            for rows, part in ((slice(None), views), (slice(0, 1), views[:1]))
        )
    except Exception as error:  # ONNX Runtime's errors share no other base
        target.unlink()
        raise RunError(
            f"the run '{run.path}' cannot be exported for any number of images: one of its members "
            "was fixed to one number; train with a network's name"
        ) from error
    if worst > TOLERANCE:
        target.unlink()
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
