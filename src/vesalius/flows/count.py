# SPDX-License-Identifier: Apache-2.0
"""`vesalius count`: how many objects of each class an image shows, with intervals and boxes."""

from __future__ import annotations

import csv
import io as text_io
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import DataError, RunError, UsageError, did_you_mean
from vesalius.files import write_atomically, write_json, write_text
from vesalius.types import Json, PathLike

if TYPE_CHECKING:
    from vesalius.io.limits import Limits
    from vesalius.tasks.detect.counting import Count
    from vesalius.tasks.detect.predict import Detector
    from vesalius.tasks.run import Run
    from vesalius.volume import Volume

# the crop of one object -> class -> probability
ClassifyCrop = Callable[["Volume"], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class CountedImage:
    """One image: `counts`, one a class, and `boxes` with label, probability and corners."""

    counts: tuple[Count, ...]
    boxes: tuple[Json, ...]

    def to_json(self) -> Json:
        """Return a plain dictionary."""
        return {"counts": [one.to_json() for one in self.counts], "boxes": list(self.boxes)}


@dataclass(frozen=True, slots=True)
class Counted:
    """What a run counts in an exam.

    Attributes:
        images: in the exam's order, those that could be counted.
        totals: class -> objects in all images.
        differential: kind -> objects, of the class whose crops were classified.
        files: what was written.
        previews: pictures of the boxes. Patient data.
        notes: images that were left out, and why.
    """

    images: tuple[CountedImage, ...]
    totals: Mapping[str, int]
    differential: Mapping[str, int] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    previews: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> Json:
        """Return all of it, for machines."""
        return {
            "task": "detect",
            "totals": dict(self.totals),
            "differential": dict(self.differential),
            "images": [image.to_json() for image in self.images],
            "files": [str(path) for path in self.files],
            "previews": [str(path) for path in self.previews],
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """Return all of it, for people."""
        out = []
        for number, image in enumerate(self.images, 1):
            head = f"image {number}: " if len(self.images) > 1 else ""
            out += [f"{head}{_text(count)}" for count in image.counts]
        if len(self.images) > 1:
            out += [f"all {len(self.images)} images: {n} {name}" for name, n in self.totals.items()]
        whole = sum(self.differential.values())
        out += [f"  {name}: {n} ({n / whole:.0%})" for name, n in self.differential.items()]
        out += [f"written: {path}" for path in self.files]
        return [*out, *(f"preview: {path}" for path in self.previews), *self.notes]


def count(
    run: PathLike | Run,
    exam: PathLike,
    *,
    out: PathLike,
    classify: PathLike | Run | ClassifyCrop | None = None,
    of: str = "",
    limits: Limits | None = None,
) -> Counted:
    """Count the objects of each class in every 2D image of an exam.

    Writes below `out`: `counts.json` (all of it), `counts.csv` (a row an image and class),
    `boxes.csv` (a row a box, corners in pixels) and `boxes-1.jpg`, … (pictures).

    Args:
        run: a run of the task `detect`, or its folder.
        exam: a file of any readable format, a DICOM folder, or a zip of DICOM files.
        out: folder for the results; the files in it bear no names of patients.
        classify: a run of the task `classify`, or any function from the crop of one object to
            the probabilities of its kinds: gives each object of the class `of` a kind, for example
            a differential of white cells.
        of: the class whose objects are classified.
        limits: what reading may take in memory.

    Raises:
        UsageError: `classify` without a known class `of`, or the reverse.
        RunError: the run is of another task, or not finished.
        DataError: no image of the exam can be counted.
    """
    from vesalius import io
    from vesalius.tasks.detect.picture import draw_boxes
    from vesalius.tasks.detect.predict import Detector
    from vesalius.tasks.run import Run
    from vesalius.volume import LabelMap

    loaded = run if isinstance(run, Run) else Run.load(run)
    if loaded.task == "detect" and not loaded.finished:
        raise RunError(f"the run '{loaded.path}' is not finished; finish its training first")
    detector = Detector.load(loaded)
    _validate(detector.classes, classify, of)
    kind_of = _classifier(classify)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    images: list[CountedImage] = []
    previews: list[Path] = []
    notes: list[str] = []
    kinds: Counter[str] = Counter()
    volumes = (v for v in io.read_all(exam, limits=limits) if not isinstance(v, LabelMap))
    for number, volume in enumerate(volumes, 1):
        try:
            found = detector.detect(volume)
        except DataError as error:
            notes.append(f"image {number} left out: {error}")
            continue
        boxes = found.boxes.to_json(detector.classes)
        if kind_of is not None:
            kinds.update(_name_kinds(boxes, volume, kind_of, of))
        images.append(CountedImage(found.counts, tuple(boxes)))
        picture = draw_boxes(volume, found.boxes, detector.classes)
        previews.append(_save(folder / f"boxes-{number}.jpg", picture))
    if not images:
        raise DataError(f"no image of the exam can be counted: {'; '.join(notes) or 'none'}")
    answer = Counted(
        tuple(images),
        _totals(images, detector),
        dict(kinds.most_common()),
        tuple(folder / name for name in ("counts.json", "counts.csv", "boxes.csv")),
        tuple(previews),
        tuple(notes),
    )
    _write(answer, loaded)
    return answer


def _validate(classes: list[str], classify: object, of: str) -> None:
    if (classify is None) != (not of):
        raise UsageError(
            "classify and of go together: the run that tells kinds apart, and the class whose "
            f"objects it is shown ({', '.join(classes)})"
        )
    if of and of not in classes:
        raise UsageError(
            f"of must be one of the run's classes, {', '.join(classes)}, got '{of}'."
            f"{did_you_mean(of, classes)}"
        )


def _classifier(classify: PathLike | Run | ClassifyCrop | None) -> ClassifyCrop | None:
    """Return the function that names the kinds of a crop."""
    from vesalius.tasks.classify.predict import Classifier
    from vesalius.tasks.run import Run

    if classify is None:
        return None
    if callable(classify):
        return classify
    loaded = classify if isinstance(classify, Run) else Run.load(classify)
    classifier = Classifier.load(loaded)

    def answer(volume: Volume) -> Mapping[str, float]:
        table = classifier.predict([volume])
        return dict(zip(classifier.classes, map(float, table), strict=True))

    return answer


def _name_kinds(boxes: list[Json], volume: Volume, kind_of: ClassifyCrop, of: str) -> Counter[str]:
    """Give each box of the class `of` its kind, in place; return how many there are of each."""
    from vesalius.tasks.detect.crop import crop

    kinds: Counter[str] = Counter()
    for box in boxes:
        if box["label"] != of:
            continue
        try:
            probabilities = kind_of(crop(volume, box))
        except DataError:
            box["kind"], box["kind_probability"] = "unknown", 0.0
        else:
            kind = max(probabilities, key=lambda name: probabilities[name])
            box["kind"], box["kind_probability"] = kind, round(float(probabilities[kind]), 4)
        kinds[box["kind"]] += 1
    return kinds


def _totals(images: list[CountedImage], detector: Detector) -> dict[str, int]:
    totals = dict.fromkeys(detector.classes, 0)
    for image in images:
        for one in image.counts:
            totals[one.label] += one.count
    return totals


def _text(count: Count) -> str:
    bounds = f"at least {count.low}" if count.high is None else f"{count.low} to {count.high}"
    return f"{count.count} {count.label} (90 % interval: {bounds})"


def _write(answer: Counted, run: Run) -> None:
    record = answer.to_json()
    names = {part: [Path(path).name for path in record[part]] for part in ("files", "previews")}
    whole, counts, boxes = answer.files
    write_json(whole, {"run": run.id, **record, **names})
    rows = [
        {"image": number, **one.to_json()}
        for number, image in enumerate(answer.images, 1)
        for one in image.counts
    ]
    write_text(counts, _csv(rows, ["image", "label", "count", "low", "high", "expected"]))
    columns = ["image", "label", "probability", "x0", "y0", "x1", "y1"]
    if answer.differential:
        columns += ["kind", "kind_probability"]
    listed = [
        {"image": number, **box}
        for number, image in enumerate(answer.images, 1)
        for box in image.boxes
    ]
    write_text(boxes, _csv(listed, columns))


def _csv(rows: list[Json], columns: list[str]) -> str:
    stream = text_io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _save(path: Path, content: bytes) -> Path:
    return write_atomically(path, lambda stream: stream.write(content))
