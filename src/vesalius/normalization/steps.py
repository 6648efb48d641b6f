# SPDX-License-Identifier: Apache-2.0
"""The steps of one rung: intensity curves, bias fields, stains, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vesalius.errors import NormalizationRefused
from vesalius.normalization.card import Kind
from vesalius.normalization.certificate import (
    group_name,
)
from vesalius.normalization.masks import Mask
from vesalius.normalization.method import Method, module_of
from vesalius.normalization.series import Series, Settings
from vesalius.normalization.transfer import Transfer
from vesalius.normalization.units import physical_unit
from vesalius.types import Array, Json
from vesalius.volume import Volume


def apply_steps(
    name: str, series: Series, source: Array, settings: Settings
) -> tuple[Array, list[list[Transfer]], list[Json]]:
    """Return the result of one rung, the curves of each channel and the records of corrections."""
    steps = name.split("+")
    records: list[Json] = []
    data = source
    transfers: list[list[Transfer]] = [[] for _ in data]
    for number, step in enumerate(steps):
        module = module_of(step)
        options = settings.options if number == 0 else {}
        if module.CARD.kind is Kind.SPATIAL:
            data, record = corrected(step, series, data, options)
            records.append(record)
            continue
        method = _method(step, module, series, settings, options)
        if module.CARD.kind is Kind.STAIN:
            data, record = _stained(step, method, series, data)
            records.append(record)
            continue
        data, curves = apply_method(method, data, series.fit.data, series.groups)
        for channel, curve in zip(transfers, curves, strict=True):
            channel += [curve] if curve is not None else []
    return data, transfers, records


def prepared(
    steps: Sequence[str],
    volume: Volume,
    mask: Mask,
    *,
    options: Mapping[str, Any],
    fitted: Mapping[str, Method],
) -> Array:
    """Return an image's channels after `steps`, fitted in the whole mask; see `Settings`."""
    series = Series(volume, mask)
    series.fit = mask
    settings = Settings("+".join(steps), options, fitted=fitted)
    return apply_steps(settings.method, series, volume.data, settings)[0]


def apply_method(
    method: Method, data: Array, mask: Array, groups: Sequence[slice]
) -> tuple[Array, list[Transfer | None]]:
    """Return the normalized channels, float32, and the curve of each.

    Channels of one group (red, green, blue) share a curve. A constant channel beside others that
    are not becomes 0 and has no curve.
    """
    curves = solved(method, data, mask, groups)
    out = np.zeros(data.shape, np.float32)
    for number, curve in enumerate(curves):
        if curve is not None:
            out[number] = curve.apply(data[number])
    return out, curves


def solved(
    method: Method, data: Array, mask: Array, groups: Sequence[slice]
) -> list[Transfer | None]:
    """Return the curve of each channel, None for a constant one beside others."""
    curves: list[Transfer | None] = [None] * len(data)
    refusal: NormalizationRefused | None = None
    for group in groups:
        part = data[group]
        try:
            if len(part) == 1:
                curve = method.solve(part[0], mask)
            else:
                curve = method.solve(part, np.broadcast_to(mask, part.shape))
        except NormalizationRefused as error:
            if error.reason != "constant" or len(groups) == 1:
                raise
            refusal = error
            continue
        for number in range(*group.indices(len(data))):
            curves[number] = curve
    if refusal is not None and not any(curves):
        raise refusal
    return curves


def _method(
    name: str, module: Any, series: Series, settings: Settings, options: Mapping[str, Any]
) -> Any:
    if not module.CARD.fitted:
        return module.METHOD(**options)
    found = fitted_method(name, series, settings)
    if found is None:
        raise NormalizationRefused(
            "not-covered",
            f"'{name}' was fitted on no series of modality '{series.volume.modality or 'unknown'}'",
        )
    return found


def fitted_method(name: str, series: Series, settings: Settings) -> Method | None:
    """Return the fitted method of the series' group, if it is the one of that name."""
    unit = physical_unit(series.volume)
    group = group_name(series.volume.modality, unit.name if unit else "")
    method = settings.fitted.get(group)
    return method if method is not None and method.card.name == name else None


def _stained(name: str, method: Any, series: Series, data: Array) -> tuple[Array, Json]:
    """Return a 2D color image in the target's stains, 0 to 255, and the record."""
    if not series.volume.is_2d or len(data) < 3:
        raise NormalizationRefused(
            "method", f"'{name}' works on red, green and blue of a slide, not on {data.shape}"
        )
    found, (record,) = method.normalize(data[:3, :, :, 0], series.fit.data[:, :, 0])
    out = np.concatenate([found[..., None], data[3:]]).astype(np.float32)
    return out, {"method": name, **record.to_json()}


def corrected(
    name: str, series: Series, data: Array, options: Mapping[str, Any]
) -> tuple[Array, Json]:
    """Return the channels after a spatial correction, and its record; constant ones stay."""
    correct: Callable[..., tuple[Array, Json]] = module_of(name).correct
    spacing = series.volume.spacing
    out, records = data.astype(np.float32), []
    for number, channel in enumerate(data):
        record: Json = {"method": name, "constant": True}
        if len(data) == 1 or np.ptp(channel[series.fit.data]) > 0:
            out[number], record = correct(channel, series.fit.data, spacing=spacing, **options)
        records.append(record)
    return out, {"method": name, "channels": records}
