# SPDX-License-Identifier: Apache-2.0
"""That an exported segmenter answers as its run does, and what 8-bit integers cost it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from vesalius.deployment.samples import Samples
from vesalius.errors import DataError, RunError
from vesalius.tasks.segment.compare import dice_scores
from vesalius.tasks.segment.predict import Segmenter
from vesalius.tasks.segment.structures import Structures
from vesalius.types import Json, Progress

TOLERANCE = 1e-3  # between logits, of the largest; engines sum in another order
EQUAL = 0.9999  # voxels of a label map that must be equal; others lie between two structures
DICE = 0.999  # of all foreground
LOSS = 0.005  # of the mean Dice score that 8-bit integers may cost
COMPARED = 3  # images whose label maps are compared
SCORED = 40  # images on which 8-bit integers are scored
_PATCHES = 3


def some_patches(decisions: Json) -> Tensor:
    """Return random patches `(N, C, ...)` float32 of a plan, always the same."""
    channels = decisions["network"]["in_channels"]
    generator = torch.Generator().manual_seed(0)
    return torch.randn(_PATCHES, channels, *decisions["patch"], generator=generator)


def prove(
    run: Segmenter, engine: Segmenter, samples: Samples | None, progress: Progress | None = None
) -> Json:
    """Return how near the answers are, both computed in 32 bits.

    Logits of random patches, alone and several at once; and the label maps of some images.

    Raises:
        RunError: they are not the same.
    """
    patches = some_patches(run.decisions)
    expected = run.logits(patches).cpu()
    differences = [
        float((engine.logits(part).cpu() - expected[: len(part)]).abs().max())
        for part in (patches, patches[:1])
    ]
    worst = max(differences) / max(1.0, float(expected.abs().max()))
    if not worst <= TOLERANCE:
        raise RunError(
            f"the exported network's answers differ by {worst:.2g} of the largest from the run's, "
            f"allowed are {TOLERANCE:g}; nothing was written"
        )
    found: Json = {"largest_difference": worst}
    if samples is not None:
        found |= _label_maps(run, engine, samples, progress)
    return found


def int8_scores(
    exact: Segmenter, small: Segmenter, samples: Samples, progress: Progress | None = None
) -> Json:
    """Return the mean Dice score of each structure on validation images, with 32 and with 8 bits.

    An image that one of them cannot answer counts as 0 for it.

    Raises:
        RunError: the mean of all falls by more than `LOSS`.
    """
    structures = Structures.of(exact.decisions)
    rows: dict[str, list[Mapping[str, float]]] = {"fp32": [], "int8": []}
    for done, (volume, codes) in enumerate(samples.validation(SCORED), 1):
        for name, segmenter in (("fp32", exact), ("int8", small)):
            try:
                scores = dice_scores(segmenter.predict(volume), codes, structures)
            except DataError:
                scores = dict.fromkeys(structures.sources, 0.0)
            rows[name].append(scores)
        if progress is not None:
            progress("scoring int8", done, None)
    means = {name: _means(table) for name, table in rows.items()}
    before, after = (float(np.mean(list(means[name].values()))) for name in ("fp32", "int8"))
    if not before - after <= LOSS:
        raise RunError(
            f"with 8-bit integers the mean Dice score of {len(rows['int8'])} validation images "
            f"falls from {before:.4f} to {after:.4f}, allowed are {LOSS:g}; nothing was written: "
            "export without int8"
        )
    return {"images": len(rows["int8"]), "dice": {"fp32": before, "int8": after}, "by": means}


def _label_maps(
    run: Segmenter, engine: Segmenter, samples: Samples, progress: Progress | None
) -> Json:
    equal = voxels = shared = total = images = 0
    for images, (volume, _) in enumerate(samples.validation(COMPARED), 1):
        one, other = run.predict(volume).data, engine.predict(volume).data
        same = one == other
        equal += int(same.sum())
        voxels += same.size
        shared += int((same & (one != 0)).sum())
        total += int((one != 0).sum()) + int((other != 0).sum())
        if progress is not None:
            progress("comparing label maps", images, COMPARED)
    if not images:
        raise RunError("no validation image of the run can be read; run `vesalius check`")
    share, dice = equal / voxels, 2 * shared / total if total else 1.0
    if share < EQUAL or dice < DICE:
        raise RunError(
            f"the exported segmenter's label maps of {images} validation images are equal in "
            f"{share:.4%} of the voxels (Dice score {dice:.4f}) to the run's; {EQUAL:.2%} and "
            f"{DICE} are asked for; nothing was written"
        )
    return {"images": images, "equal_voxels": share, "dice": dice}


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
