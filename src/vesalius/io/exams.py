# SPDX-License-Identifier: Apache-2.0
"""DICOM input of any packing (a file, a list, a folder, a zip) to volumes and label maps.

Files are grouped by series through their headers, each series is taken apart into stacks, and a
stack becomes a `Volume`; a Segmentation becomes a `LabelMap`; a Structure Set becomes one on the
grid of a reference image. Documents, plans and presentation states hold no image and are left out.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from vesalius.errors import UnsupportedFormat, UsageError
from vesalius.io import formats, zipped
from vesalius.io.dicom import kinds
from vesalius.io.dicom.assemble import assemble
from vesalius.io.dicom.header import Header, read_header
from vesalius.io.dicom.parametric import read_parametric_map
from vesalius.io.dicom.rtstruct import read_rtstruct
from vesalius.io.dicom.segmentation import read_segmentation
from vesalius.io.dicom.series import Stack, stacks
from vesalius.io.limits import Limits
from vesalius.types import PathLike
from vesalius.volume import Source, Volume

# Stacks that are meant when one image is asked for; the others count only where they are alone.
_PRINCIPAL = frozenset({"image", "parametric-map", "dose"})
_OBJECTS = frozenset({"segmentation", "structure-set", "parametric-map"})


@dataclass(frozen=True, slots=True)
class _Choice:
    """One image that could be read: what it is in words without patient data, and how."""

    words: str
    principal: bool
    load: Callable[[], Volume]


def read_one(
    path: PathLike | Sequence[PathLike],
    *,
    reference: Volume | None,
    allow_gaps: bool,
    resample_irregular: bool,
    limits: Limits,
) -> Volume:
    """Read the one image that `path` holds; `UsageError` lists the choices where there are more."""
    with ExitStack() as stack:
        assembly = partial(
            assemble, limits=limits, allow_gaps=allow_gaps, resample_irregular=resample_irregular
        )
        headers = _files(path, stack, limits)
        found = _choices(headers, assembly, reference, limits, _label(path))
        wanted = [choice for choice in found if choice.principal] or found
        if len(wanted) > 1:
            listed = "; ".join(f"{n + 1}: {choice.words}" for n, choice in enumerate(wanted))
            raise UsageError(
                f"{_label(path)}: holds {len(wanted)} images ({listed}); pass the list of files of "
                "one of them, or iterate over vesalius.io.read_all"
            )
        return _attributed(wanted[0].load(), path)


def read_each(
    path: PathLike | Sequence[PathLike], *, reference: Volume | None, limits: Limits
) -> Iterator[Volume]:
    """Yield every image that `path` holds, one in memory at a time.

    Beside images, structure sets are left out unless `reference` gives them a grid.
    """
    with ExitStack() as stack:
        assembly = partial(assemble, limits=limits)
        headers = _files(path, stack, limits)
        choices = _choices(headers, assembly, reference, limits, _label(path))
        drawable = [one for one in choices if reference or one.words != "structure-set"]
        for choice in drawable or choices:
            yield _attributed(choice.load(), path)


def _files(
    path: PathLike | Sequence[PathLike], stack: ExitStack, limits: Limits
) -> list[tuple[str, Header]]:
    if not isinstance(path, str | os.PathLike):
        files = [Path(one) for one in path]
    elif Path(path).is_dir():
        files = [file for file in _walk(Path(path)) if formats.is_dicom_file(file)]
        if not files:
            raise UnsupportedFormat(
                "the folder holds no DICOM file; other formats are read file by file",
                path=os.fspath(path),
            )
    elif formats.sniff(path) == "dicom-zip":
        files = stack.enter_context(zipped.dicom_files(path, limits=limits))
    else:
        files = [Path(path)]
    if not files:
        raise UsageError("the list of files is empty")
    return [(os.fspath(file), _header(file, limits)) for file in files]


def _header(file: Path, limits: Limits) -> Header:
    try:
        return read_header(file, limits=limits)
    except OSError as error:
        raise UsageError(f"{file}: cannot be opened ({error.strerror})") from error


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the regular files below a folder; broken links and pipes are none."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if (file := Path(parent, name)).is_file():
                yield file


def _choices(
    headers: list[tuple[str, Header]],
    assembly: Callable[[Stack], Volume],
    reference: Volume | None,
    limits: Limits,
    label: str,
) -> list[_Choice]:
    groups: dict[tuple[str, str], list[tuple[str, Header]]] = defaultdict(list)
    choices: list[_Choice] = []
    others: set[str] = set()
    for file, header in headers:
        kind = kinds.kind_of(header)
        if kind in _OBJECTS:
            choices.append(_object(kind, file, reference, limits))
        else:
            groups[header.study_uid or "", header.series_uid or ""].append((file, header))
    for members in groups.values():
        for stack in stacks(members, limits=limits):
            if stack.kind not in kinds.IMAGES and stack.kind not in ("mosaic", "tiled"):
                others.add(stack.kind)
                continue
            choices.append(_image(stack, assembly))
    if not choices:
        raise UnsupportedFormat(
            f"DICOM without an image ({', '.join(sorted(others))}) is not read",
            path=label,
            kinds=sorted(others),
        )
    return choices


def _image(stack: Stack, assembly: Callable[[Stack], Volume]) -> _Choice:
    size = "x".join(str(n) for n in stack.shape)
    return _Choice(
        f"{stack.modality or 'no modality'} {stack.kind} {size} {stack.label}".strip(),
        stack.kind in _PRINCIPAL,
        lambda: assembly(stack),
    )


def _object(kind: str, file: str, reference: Volume | None, limits: Limits) -> _Choice:
    def load() -> Volume:
        if kind == "segmentation":
            return read_segmentation(file, reference=reference, limits=limits)
        if kind == "parametric-map":
            return read_parametric_map(file, limits=limits)
        if reference is None:
            raise UsageError(
                f"{file}: a Structure Set holds contours without a grid: pass reference=, the "
                "image that they were drawn on"
            )
        return read_rtstruct(file, reference, limits=limits)

    return _Choice(kind, True, load)


def _label(path: PathLike | Sequence[PathLike]) -> str:
    return os.fspath(path) if isinstance(path, str | os.PathLike) else "the list of files"


def _attributed(volume: Volume, path: PathLike | Sequence[PathLike]) -> Volume:
    """Name the zip as the source instead of temporary files that are about to go."""
    if not isinstance(path, str | os.PathLike) or not os.path.isfile(path):
        return volume
    if os.fspath(path) in volume.source.files:
        return volume
    metadata = volume.source.metadata
    source = Source(files=(os.fspath(path),), format="dicom-zip", metadata=metadata)
    return replace(volume, source=source)
