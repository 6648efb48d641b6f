# SPDX-License-Identifier: Apache-2.0
"""Slice: one image plane of one file, with all that placing, grouping and scaling it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vesalius.io.dicom.header import Floats, Header


@dataclass(frozen=True, slots=True)
class Slice:
    """One frame of one file; geometry in LPS+ millimeters.

    Single-frame files give one slice with the header's values; multi-frame files one per frame,
    where values of the functional groups replace those of the header.
    """

    path: str
    header: Header
    frame: int = 0
    position: Floats | None = None
    orientation: Floats | None = None
    pixel_spacing: Floats | None = None  # between rows, between columns
    spacing_source: str = ""  # which attribute stated `pixel_spacing`
    thickness: float | None = None
    spacing_between: float | None = None
    slope: float | None = None
    intercept: float | None = None
    rescale_type: str | None = None
    unit: str | None = None  # UCUM code of the scaled values, where a real-world mapping says so
    image_type: tuple[str, ...] = ()
    component: str | None = None  # magnitude, phase, real, imaginary
    echo_time: float | None = None
    b_value: float | None = None
    temporal: int | None = None
    trigger_time: float | None = None
    acquisition: int | None = None
    time: str | None = None  # date and time of acquisition
    stack: str | None = None  # StackID
    number: int | None = None  # instance number, or frame number


def slice_of(path: str, header: Header, frame: int = 0, **found: Any) -> Slice:
    """Return one slice from its header; `found` replaces what the header states where not None."""
    spacing, source = _spacing(header)
    if found.get("pixel_spacing") is not None:
        spacing, source = found.pop("pixel_spacing"), "PixelSpacing"
    values: dict[str, Any] = {
        "position": header.position,
        "orientation": header.orientation,
        "thickness": header.slice_thickness,
        "spacing_between": header.spacing_between,
        "slope": header.slope if header.dose_scaling is None else header.dose_scaling,
        "intercept": header.intercept,
        "rescale_type": header.rescale_type,
        "image_type": header.image_type or (),
        "component": header.complex_component,
        "echo_time": header.echo_time if header.echo_time is not None else header.echo,
        "b_value": header.b_value,
        "temporal": header.temporal_position,
        "trigger_time": header.trigger_time,
        "acquisition": header.acquisition_number,
        "time": _time(header),
        "number": header.instance_number,
    }
    values |= {name: value for name, value in found.items() if value is not None}
    return Slice(path, header, frame, pixel_spacing=spacing, spacing_source=source, **values)


def _time(header: Header) -> str | None:
    if header.frame_reference_time is not None:
        return f"{header.frame_reference_time:015.3f}"
    if header.acquisition_time is None:
        return None
    return f"{header.acquisition_date or ''}{header.acquisition_time}"


def _spacing(header: Header) -> tuple[Floats | None, str]:
    """Return the spacing between rows and columns, and the attribute that states it."""
    candidates = (
        (header.pixel_spacing, "PixelSpacing"),
        (header.imager_spacing, "ImagerPixelSpacing"),
        (header.nominal_spacing, "NominalScannedPixelSpacing"),
        (_ultrasound_spacing(header), "SequenceOfUltrasoundRegions"),
    )
    for spacing, source in candidates:
        if spacing is not None and min(spacing) > 0:
            return spacing, source
    return None, ""


def _ultrasound_spacing(header: Header) -> Floats | None:
    """Return the spacing of the largest two-dimensional tissue region, centimeters to mm."""
    largest, spacing = 0.0, None
    numbers = header.us_regions or ()
    for n in range(0, len(numbers) - 9, 10):
        left, top, right, bottom, units_x, units_y, dx, dy, form, _ = numbers[n : n + 10]
        area = (right - left) * (bottom - top)
        # PS3.3 C.8.5.5.1.15: 3 is centimeters; C.8.5.5.1.1: 1 is a 2D image
        if units_x == units_y == 3 and form == 1 and area > largest:
            largest, spacing = area, (abs(dy) * 10, abs(dx) * 10)
    return spacing
