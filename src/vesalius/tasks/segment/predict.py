# SPDX-License-Identifier: Apache-2.0
"""Label maps of new images from a run, on the source's own grid: the one way, used everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor, nn

from vesalius import io
from vesalius.errors import DataError, RunError
from vesalius.files import fsync_folder
from vesalius.metrics import compare_masks, failed_masks, segmentation_summary
from vesalius.networks import build
from vesalius.normalization import Normalizer
from vesalius.tasks.cases import Case
from vesalius.tasks.run import Run
from vesalius.tasks.segment.grid import class_indices, to_plan, to_source
from vesalius.tasks.segment.slide import slide
from vesalius.training import device
from vesalius.types import Array, Json, Progress
from vesalius.volume import LabelMap, Volume

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort


class Segmenter:
    """A trained model with its normalizer, in evaluation mode, at the plan's precision."""

    def __init__(self, model: nn.Module, decisions: Json, normalizer: Normalizer) -> None:
        self.decisions = decisions
        self.normalizer = normalizer
        self.fabric = device.start(decisions["precision"])
        self.model = model.to(self.fabric.device).eval()

    @classmethod
    def load(cls, run: Run) -> Self:
        """Load a run's weights; nothing is unpickled.

        Raises:
            RunError: the run is of another task, or incomplete.
        """
        if run.task != "segment":
            raise RunError(f"the run must be of the task 'segment', got '{run.task}'")
        model = new_model(run.decisions, 0)
        model.load_state_dict(run.weights())
        return cls(model, run.decisions, run.normalizer())

    def predict(self, volume: Volume) -> LabelMap:
        """Return the label map of one image, voxel for voxel on its grid.

        Raises:
            DataError: the image cannot be normalized or has the wrong channels.
        """
        prepared = to_plan(volume, self.decisions, self.normalizer)
        # Half precision, as the network saw it in training.
        logits = slide(self.logits, prepared.data.astype(np.float16), self.decisions)
        return to_source(logits, prepared.affine, volume, self.decisions)

    def logits(self, patch: Tensor) -> Tensor:
        """Return logits of a batch of patches."""
        with torch.inference_mode(), self.fabric.autocast():
            answer: Tensor = self.model(patch.to(self.fabric.device))
        return answer


def new_model(decisions: Json, seed: int) -> nn.Module:
    """Return a model with weights drawn from `seed`."""
    network = decisions["network"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(
            network["name"],
            spatial_dims=network["spatial_dims"],
            in_channels=network["in_channels"],
            out_channels=1 + len(decisions["labels"]),
            **network["options"],
        )


def score_cases(
    run: Run,
    segmenter: Segmenter,
    cohort: Cohort,
    cases: Sequence[Case],
    split: str,
    *,
    progress: Progress | None = None,
) -> Json:
    """Predict one subset, write label maps, `predictions.parquet` and `metrics.json`.

    An image that cannot be read or predicted counts as a failure, with the worst of each score;
    one whose truth cannot be read, or lies on another grid, is left out and said so.
    """
    rows: list[Json] = []
    left_out: list[str] = []
    for done, case in enumerate(cases, 1):
        row = _score(run, segmenter, cohort, case, split)
        if "left_out" in row:
            left_out.append(f"image {case.key} left out of {split}: {row['left_out']}")
        else:
            rows.append(row)
        if progress is not None:
            progress(f"scoring {split}", done, len(cases))
    if not rows:
        raise DataError(f"no image of the subset '{split}' has a usable mask")
    if (run.path / "predictions").exists():
        fsync_folder(run.path / "predictions")
    run.write_predictions(split, rows)
    summary = segmentation_summary(
        {name: [row[name] for row in rows] for name in rows[0]},
        run.decisions["labels"],
        groups={name: [str(row[name]) for row in rows] for name in ("modality", "scanner")},
    )
    return run.write_metrics(split, {**summary, "left_out": left_out})


def _score(run: Run, segmenter: Segmenter, cohort: Cohort, case: Case, split: str) -> Json:
    (row,) = case.rows
    base: Json = {
        "key": case.key,
        "patient": case.patient,
        "split": split,
        "modality": case.value("modality"),
        "scanner": case.value("scanner"),
    }
    labels = dict(enumerate(run.decisions["labels"], 1))
    try:
        mask = cohort.read_mask(row)
    except DataError as error:
        return {"left_out": str(getattr(error, "reason", error))}
    try:
        volume = cohort.read(row)
    except DataError as error:
        truth = _indexed(mask, run.decisions)
        reason = str(getattr(error, "reason", error))
        scores = failed_masks(truth, mask.spacing, labels)
        return {**base, **scores, "failed": True, "reason": reason, "file": ""}
    try:
        truth = class_indices(mask, volume, run.decisions)
    except DataError as error:
        return {"left_out": str(error)}
    try:
        predicted = segmenter.predict(volume)
    except DataError as error:
        scores = failed_masks(truth, volume.spacing, labels)
        return {**base, **scores, "failed": True, "reason": str(error), "file": ""}
    found = _indexed(predicted, run.decisions)
    scores = compare_masks(found, truth, volume.spacing, labels)
    name = f"predictions/{case.key}.nii.gz"
    (run.path / "predictions").mkdir(exist_ok=True)
    io.write(predicted, run.path / name)
    return {**base, **scores, "failed": False, "reason": "", "file": name}


def _indexed(mask: LabelMap, decisions: Json) -> Array:
    return class_indices(mask, mask, decisions)
