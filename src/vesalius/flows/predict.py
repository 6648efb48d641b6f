# SPDX-License-Identifier: Apache-2.0
"""`vesalius predict`: a run applied to one new exam."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import RunError, UsageError
from vesalius.flows.predicting.prediction import FORMATS as FORMATS
from vesalius.flows.predicting.prediction import Prediction as Prediction
from vesalius.flows.predicting.wanted import Wanted
from vesalius.types import PathLike

if TYPE_CHECKING:
    from collections.abc import Callable

    from vesalius.io.limits import Limits
    from vesalius.tasks.run import Run


def predict(
    run: PathLike | Run,
    exam: PathLike,
    *,
    out: PathLike,
    format: str = "auto",  # noqa: A002 - the option's name
    modality: str = "",
    explain: bool = False,
    limits: Limits | None = None,
    memory: int | None = None,
    mirror: bool = False,
    keep_names: bool = False,
    channels: str = "",
    everywhere: bool = False,
    say: Callable[[str], None] | None = None,
) -> Prediction:
    """Apply a run to a new exam and write the answer below the folder `out`.

    `classify` takes all images of the exam as one case, of whatever formats, and answers from those
    that can be read. `segment` answers for each of its images
    of the modalities that the run was trained on, voxel for voxel on the image's own grid.

    Args:
        run: a run or its folder, or the folder that `vesalius export` made of a segmenter.
        exam: a file of any readable format, a DICOM folder, a folder of files of other formats
            (segment: each an image of its own; of a run with several channels `CASE_0000.nii.gz`,
            `CASE_0001.nii.gz`, … are one image), or a zip of DICOM files.
        out: folder for the results; the files in it bear no names of patients.
        format: of label maps: `auto` (DICOM SEG for DICOM files, else NIfTI), or one of
            `FORMATS`; of a classifier's answer, beside JSON and CSV: `auto` (a DICOM structured
            report for DICOM files), `json` (none), `dicom-sr`. More names, joined by commas, are
            made beside it: another label map's format, `dicom-sr` (volumes), `key-images`, `gsps`
            (outlines), `fhir`; of a classifier `key-images`, `fhir`. What cannot be made of an
            image is noted.
        modality: DICOM's code for images that do not state theirs (classify).
        explain: also write how much each image counts and where the classifier looked (classify).
        limits: what reading may take in memory.
        memory: bytes that a segmenter's sums may take; default a quarter of its device's.
        mirror: answer by the mean over mirror images too, along the axes that the plan's
            augmentation mirrors (segment); takes twice as long for each axis.
        keep_names: name label maps and previews after the files they come from (segment, formats
            other than DICOM); names of files may tell who the patient is.
        channels: names of the run's channels that the exam's images have, in their order, joined
            by commas; the run's others count as missing (segment).
        everywhere: look at every window, also where the run's coarse network expects no structure
            (segment).
        say: is told, before each image is segmented, how many windows and bytes that takes.

    Raises:
        UsageError: unknown format, or a DICOM format for an exam that is not DICOM files.
        RunError: the run is not finished. DataError: no image of the exam can serve.
    """
    from vesalius.tasks.run import Run

    known = run if isinstance(run, Run) else Run.load(run, exported=True)
    if not known.finished:
        raise RunError(f"the run '{known.path}' is not finished; finish its training first")
    wanted = Wanted.parse(format, known.task)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    if known.task == "segment":
        from vesalius.flows.predicting.segmentation import segment_exam

        if explain:
            raise UsageError("--explain belongs to a classifier's answer")
        from vesalius.flows.predicting.exam_images import exam_images

        notes: list[str] = []
        several = len(known.decisions.get("channels", [])) > 1
        images = exam_images(exam, notes, out=folder, limits=limits, channels=several)
        return segment_exam(
            known, images, folder, wanted, notes=notes, keep_names=keep_names, memory=memory,
            mirror=mirror, channels=[name.strip() for name in channels.split(",") if name.strip()],
            everywhere=everywhere, say=say,
        )  # fmt: skip
    if memory is not None or mirror or keep_names or channels or everywhere:
        raise UsageError(
            "memory, mirror, keep_names, channels and everywhere belong to a segmenter; leave them "
            "out for a classifier"
        )
    from vesalius.flows.predicting.classification import classify_exam

    return classify_exam(
        known, Path(exam), folder, wanted, modality=modality, explained=explain, limits=limits
    )
