# SPDX-License-Identifier: Apache-2.0
"""Outlines of structures as a Grayscale Softcopy Presentation State (PS3.3 section A.33.1).

A workstation draws them over the source images themselves, which stay as they are; hiding them is
one key. Each structure has a layer of its own, with its name and color. The file is read back and
its outlines filled: they must enclose the voxels that were labeled.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vesalius.errors import CorruptFile, DataError, UsageError
from vesalius.io.dicom.contours import fill, outlines
from vesalius.io.dicom.derived import equipment, save
from vesalius.io.dicom.key_images import COLORS
from vesalius.io.dicom.segmentation_writer import label_values
from vesalius.io.dicom.source_planes import SourcePlanes, source_planes
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.io.maker import Maker
from vesalius.types import Array, PathLike
from vesalius.volume import LabelMap

if TYPE_CHECKING:
    from pydicom import Dataset

PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"
_GRAY = ("MONOCHROME1", "MONOCHROME2")
Place = tuple[str, int]  # an image's SOP Instance UID and its frame, from 0


def write_presentation_state(
    label_map: LabelMap,
    path: PathLike,
    *,
    source_files: Sequence[PathLike],
    maker: Maker,
    series_number: int = 304,
    limits: Limits = DEFAULT_LIMITS,
) -> Path:
    """Write a label map's outlines over its source images; returns the path.

    Args:
        label_map: on the source's grid, in any order and direction of axes.
        path: the file to write, atomically and durably.
        source_files: all DICOM files of the image that was labeled, in any order.
        maker: what made the label map.
        series_number: of the new series.
        limits: for reading the sources.

    Raises:
        GeometryError: the label map is off the source's grid.
        UsageError: nothing is labeled, or the source is in color.
        DataError: images whose values are scaled in different ways, which one state cannot say.
    """
    planes = source_planes(label_map, source_files, limits=limits)
    if any(s.header.photometric not in _GRAY for s in planes.slices):
        raise UsageError(
            "a grayscale presentation state needs gray images; choose key-images or dicom-seg"
        )
    drawn = _drawn(planes, label_map)
    if not drawn:
        raise UsageError("nothing is labeled, so there is no outline to draw")
    data_set = _state(planes, drawn, maker, series_number)
    data_set.Laterality = ""
    data_set.ContributingEquipmentSequence = [equipment(maker)]
    target = save(data_set, path)
    try:
        _check(target, planes, drawn)
    except BaseException:
        target.unlink()
        raise
    return target


def _drawn(planes: SourcePlanes, label_map: LabelMap) -> dict[str, dict[Place, Array]]:
    """Return structure -> where -> its mask `(column, row)`, where there is something of it."""
    uids = _uids(planes)
    found: dict[str, dict[Place, Array]] = defaultdict(dict)
    for value in label_values(label_map):
        name = label_map.names.get(value, f"label {value}")
        for s, k in zip(planes.slices, planes.index, strict=True):
            mask = (planes.data[..., k] == value).any(axis=0)
            if mask.any():
                found[name][uids[s.path], s.frame] = mask
    return found


def _uids(planes: SourcePlanes) -> dict[str, str]:
    """Return path -> SOP Instance UID."""
    paths = dict.fromkeys(s.path for s in planes.slices)
    return {p: str(d.SOPInstanceUID) for p, d in zip(paths, planes.datasets, strict=True)}


def _state(
    planes: SourcePlanes,
    drawn: Mapping[str, Mapping[Place, Array]],
    maker: Maker,
    series_number: int,
) -> Dataset:
    import highdicom as hd

    by_uid = {str(one.SOPInstanceUID): one for one in planes.datasets}
    layers, annotations = [], []
    for n, (name, places) in enumerate(drawn.items(), 1):
        layer = hd.pr.GraphicLayer(
            f"STRUCTURE_{n}",
            order=n,
            description=name[:64],
            display_color=hd.color.CIELabColor.from_rgb(*COLORS[(n - 1) % len(COLORS)]),
        )
        layers.append(layer)
        tracking = hd.UID()
        for (uid, frame), mask in places.items():
            image = by_uid[uid]
            annotations.append(
                hd.pr.GraphicAnnotation(
                    referenced_images=[image],
                    referenced_frame_number=(
                        frame + 1 if int(image.get("NumberOfFrames") or 1) > 1 else None
                    ),
                    graphic_layer=layer,
                    graphic_objects=[_polyline(ring, name, tracking) for ring in outlines(mask)],
                )
            )
    shown = {uid for places in drawn.values() for uid, _ in places}
    try:
        with warnings.catch_warnings():
            # The source's own values (a long name, an odd date) are copied as they are.
            warnings.simplefilter("ignore")
            data_set: Dataset = hd.pr.GrayscaleSoftcopyPresentationState(
                referenced_images=[by_uid[uid] for uid in by_uid if uid in shown],
                series_instance_uid=hd.UID(),
                series_number=series_number,
                sop_instance_uid=hd.UID(),
                instance_number=1,
                manufacturer="Vesalius",
                manufacturer_model_name=maker.model[:64],
                software_versions=maker.version,
                device_serial_number=maker.run_id[:64],
                content_label="OUTLINES",
                content_description=f"Outlines by {maker.model}"[:64],
                content_creator_name="Vesalius",
                graphic_annotations=annotations,
                graphic_layers=layers,
                series_description="Outlines by Vesalius",
            )
    except ValueError as error:
        raise DataError(
            f"the images cannot share one presentation state ({error}); choose dicom-seg or "
            "key-images"
        ) from error
    return data_set


def _polyline(ring: Array, name: str, tracking: str) -> Any:
    """Return one closed outline.

    A ring's indices are of pixels' centers; PIXEL coordinates begin with 0 at the outer corner of
    the first pixel (PS3.3 C.10.5.1.2).
    """
    import highdicom as hd

    closed = np.concatenate([ring, ring[:1]]) + 0.5
    return hd.pr.GraphicObject(
        graphic_type="POLYLINE",
        graphic_data=closed,
        units="PIXEL",
        tracking_id=name[:64],
        tracking_uid=tracking,
    )


def read_outlines(path: PathLike) -> dict[str, dict[Place, list[Array]]]:
    """Return the outlines of a presentation state that was written here.

    Returns:
        Structure -> (SOP Instance UID, frame) -> closed outlines `(n, 2)` in indices of pixels'
        centers, `(column, row)`.
    """
    from pydicom import dcmread

    data_set = dcmread(path)
    names = {one.GraphicLayer: one.GraphicLayerDescription for one in data_set.GraphicLayerSequence}
    found: dict[str, dict[Place, list[Array]]] = defaultdict(lambda: defaultdict(list))
    for annotation in data_set.GraphicAnnotationSequence:
        image = annotation.ReferencedImageSequence[0]
        frame = int(image.get("ReferencedFrameNumber") or 1) - 1
        rings = found[names[annotation.GraphicLayer]][image.ReferencedSOPInstanceUID, frame]
        for drawn in annotation.GraphicObjectSequence:
            points = np.asarray(drawn.GraphicData, np.float64).reshape(-1, 2)
            rings.append(points[:-1] - 0.5)
    return found


def _check(path: Path, planes: SourcePlanes, drawn: Mapping[str, Mapping[Place, Array]]) -> None:
    """Fill the outlines of the file and compare them with what was labeled."""
    found = read_outlines(path)
    size = planes.data.shape[1:3]
    for name, places in drawn.items():
        for place, mask in places.items():
            rings = found.get(name[:64], {}).get(place, [])
            if not np.array_equal(fill(rings, size), mask):
                raise CorruptFile(
                    f"the presentation state just written does not outline '{name}' as it was; it "
                    "was removed",
                    path=str(path),
                )
