# SPDX-License-Identifier: Apache-2.0
"""A segmenter's probabilities of whole images, asked once and kept while its student learns."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from vesalius.tasks.segment.footprint import sums_bytes
from vesalius.tasks.segment.patches import Prepared
from vesalius.tasks.segment.predict import Segmenter
from vesalius.tasks.segment.slide import lay_out, slide
from vesalius.tasks.segment.structures import answers
from vesalius.types import Array, Progress, Shape3

_FEWEST = 2  # images


def ask(
    prepared: Prepared,
    keys: Sequence[str],
    teacher: Segmenter,
    *,
    late: Callable[[], bool],
    most_bytes: float,
    progress: Progress | None,
) -> Prepared:
    """Return what the teacher says of images, as images of probabilities `(structures, i, j, k)`.

    The background of structures that are apart is what they leave, so that beyond an image's edge,
    where a patch holds zeros, there is background. Labels and spots are those of `prepared`. After
    an interruption asking goes on.

    Args:
        prepared: images on the plan's grid, the teacher's as the student's.
        keys: of the images, in the order in which they are asked about.
        teacher: the segmenter.
        late: says whether asking has taken its time; two images are asked about in any case.
        most_bytes: on disk, of all answers.
        progress: called as `progress(stage, done, total)`.
    """
    folder = prepared.folder / "taught"
    folder.mkdir(exist_ok=True)
    said: list[str] = []
    held = 0
    for key in keys:
        path = folder / f"{key}.image.npy"
        if not path.exists():
            if len(said) >= _FEWEST and (late() or held > most_bytes):
                break
            table = _answer(teacher, np.asarray(prepared.image(key)))
            partial = path.with_suffix(".part")
            with partial.open("wb") as stream:
                np.save(stream, table)
            partial.replace(path)
        for name in ("label", "spots"):
            shutil.copyfile(prepared.folder / f"{key}.{name}.npy", folder / f"{key}.{name}.npy")
        held += path.stat().st_size
        said.append(key)
        if progress is not None:
            progress("asking the teacher", len(said), len(keys))
    return Prepared(folder, frozenset(said), {})


def _answer(teacher: Segmenter, image: Array) -> Array:
    """Return probabilities `(structures, i, j, k)` float16 of an image on the plan's grid."""
    decisions, where = teacher.decisions, teacher.fabric.device
    i, j, k = image.shape[1:]
    layout = lay_out(
        (i, j, k), decisions, classes=answers(decisions), memory=sums_bytes(decisions, where),
        several=decisions.get("folds", 1) > 1,
    )  # fmt: skip
    regions = decisions.get("regions", False)
    table = np.zeros((len(decisions["labels"]), i, j, k), np.float16)

    def take(block: Tensor, corner: Shape3) -> None:
        sure = torch.sigmoid(block) if regions else torch.softmax(block, 0)[1:]
        place = tuple(slice(a, a + n) for a, n in zip(corner, block.shape[1:], strict=True))
        table[(slice(None), *place)] = sure.cpu().numpy()

    slide(teacher.logits, image, layout, take, device=where)
    return table
