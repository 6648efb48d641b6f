# SPDX-License-Identifier: Apache-2.0
"""What a run keeps of its normalization: fitted on training rows, saved as JSON, bound to a model.

It refuses by name what it does not cover: a modality that was not among the training images, a
physical unit that differs, values outside the range that training saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from vesalius.errors import NormalizationRefused, RunError, UsageError
from vesalius.files import read_json, write_json
from vesalius.normalization import transfer
from vesalius.normalization.certificate import group_name
from vesalius.normalization.intensity.mad import Mad
from vesalius.normalization.masks import fitting_mask
from vesalius.normalization.method import Method, module_of
from vesalius.normalization.series import channel_groups, refuse_hopeless
from vesalius.normalization.steps import apply_method, prepared
from vesalius.normalization.units import physical_unit
from vesalius.types import Array, Json, PathLike
from vesalius.volume import LabelMap, Volume

FORMAT = 2
RECORD = "normalization"  # where `apply` leaves its curves in `volume.source.metadata`
_CONSTANT = "constant"  # in the place of a curve: the one value of a channel that came out as 0
_LOOK = 1 << 16  # values that the check of the range looks at
_INSIDE = 0.5  # of the values must lie in the range that training saw


@dataclass(frozen=True, slots=True)
class Coverage:
    """One group of training images.

    Attributes:
        unit: their physical unit, `` where arbitrary, None where they have several.
        low, high: range of their values, for groups with a unit; None where unknown.
    """

    unit: str | None = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Normalizer:
    """A method for every image, fitted ones for some groups, and what both were fitted for.

    Attributes:
        method: serves every group that `fitted` does not name.
        fitted: group (`CT HU`, `MR`, …; see `certificate.group_name`) -> method.
        covers: modality -> coverage; empty where nothing was fitted, and nothing is refused.
        before: names of the steps (bias field, stain, …) that precede `method`.
        options: parameters of the first of them.
    """

    method: Method = field(default_factory=Mad)
    fitted: Mapping[str, Method] = field(default_factory=dict)
    covers: Mapping[str, Coverage] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, volume: Volume, *, given: LabelMap | Array | None = None) -> Volume:
        """Return the image on the common scale, float32, on its own grid.

        A 2D color image keeps the relation between its channels; other channels are treated one
        by one. An image whose file names no modality counts as of the only one that is covered. The
        curves are recorded in `source.metadata["normalization"]`.

        Args:
            volume: `(channel, i, j, k)`.
            given: a mask to fit in, instead of the one of the image's modality.

        Raises:
            NormalizationRefused: empty, constant, not finite, or not covered.
        """
        if len(self.covers) == 1 and (not volume.modality or "" in self.covers):
            volume = replace(volume, modality=next(iter(self.covers)))  # one of the two names none
        refuse_hopeless(volume)
        self.refuse_uncovered(volume)
        found = fitting_mask(volume, given=given)
        method, data, mask = self.method_for(volume), volume.data, found.data
        if self.before and (method is self.method or method.card.name in self.before):
            data = prepared(self.before, volume, found, options=self.options, fitted=self.fitted)
            method = self.method
        data, curves = apply_method(method, data, mask, channel_groups(volume))
        record = [
            curve.to_json() if curve is not None else {_CONSTANT: float(channel[mask][0])}
            for curve, channel in zip(curves, volume.data, strict=True)
        ]
        source = replace(volume.source, metadata={**volume.source.metadata, RECORD: record})
        return replace(volume.with_data(data), source=source)

    def inverse(self, volume: Volume) -> Volume:
        """Return an image that `apply` made in its own unit again; clipped values at their limits.

        Raises:
            UsageError: `apply` did not make it, or a curve has no inverse.
        """
        record: Any = volume.source.metadata.get(RECORD)
        if not isinstance(record, list) or len(record) != len(volume.data):
            raise UsageError(
                "inverse takes an image that apply returned: its curves are in "
                f'source.metadata["{RECORD}"], and this one has none'
            )
        if self.before:
            raise UsageError(f"{' and '.join(self.before)} cannot be undone; keep the source")
        data = np.empty(volume.data.shape, np.float32)
        for number, curve in enumerate(record):
            if _CONSTANT in curve:
                data[number] = curve[_CONSTANT]
            else:
                data[number] = transfer.from_json(curve).inverse(volume.data[number])
        metadata = {k: v for k, v in volume.source.metadata.items() if k != RECORD}
        return replace(volume.with_data(data), source=replace(volume.source, metadata=metadata))

    def method_for(self, volume: Volume) -> Method:
        """Return the method that serves an image."""
        unit = physical_unit(volume)
        group = group_name(volume.modality, unit.name if unit else "")
        return self.fitted.get(group, self.method)

    def refuse_uncovered(self, volume: Volume) -> None:
        """Raise where the image's modality, unit or range is not what training saw.

        Raises:
            NormalizationRefused: `not-covered`, with what was seen and what came.
        """
        if not self.covers:
            return
        if not volume.modality:
            if self.fitted and "" not in self.covers:
                raise NormalizationRefused(
                    "not-covered",
                    "the image's file names no modality, and the run treats "
                    f"{', '.join(sorted(self.covers))} each in its own way; give a file that "
                    "names it",
                )
            return
        coverage = self.covers.get(volume.modality)
        if coverage is None:
            if "" in self.covers:  # training images without a known modality cover any
                return
            raise NormalizationRefused(
                "not-covered",
                f"the image's modality is {volume.modality}, the run was trained on "
                f"{', '.join(sorted(self.covers))}",
            )
        unit = physical_unit(volume)
        name = unit.name if unit else ""
        if coverage.unit is not None and name != coverage.unit:
            raise NormalizationRefused(
                "not-covered",
                f"{volume.modality} of the training images has values in "
                f"{coverage.unit or 'arbitrary units'}, this image's are in "
                f"{name or 'arbitrary units'}; convert it, or train on such images",
            )
        if name and coverage.low is not None and coverage.high is not None:
            flat = volume.data.reshape(-1)
            some = flat[:: max(1, flat.size // _LOOK)]
            share = float(np.mean((some >= coverage.low) & (some <= coverage.high)))
            if share < _INSIDE:
                raise NormalizationRefused(
                    "not-covered",
                    f"{share:.0%} of the image's values lie between {coverage.low:g} and "
                    f"{coverage.high:g} {name}, where those of the training images lie; "
                    "check its rescale slope and intercept",
                )

    def to_json(self) -> Json:
        """Return the record for `normalizer.json`."""
        return {
            "format": FORMAT,
            "method": self.method.to_json(),
            "fitted": {name: method.to_json() for name, method in sorted(self.fitted.items())},
            "covers": {
                name: {"unit": one.unit, "low": one.low, "high": one.high}
                for name, one in sorted(self.covers.items())
            },
            "before": [*self.before],
            "options": dict(self.options),
        }

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the normalizer of a saved record.

        Raises:
            RunError: another format.
        """
        if record.get("format") != FORMAT:
            raise RunError(
                f"the normalizer must have format {FORMAT}, got {record.get('format')}; load it "
                "with the version of Vesalius that wrote it (see plan.json)"
            )
        return cls(
            method_from_json(record["method"]),
            {name: method_from_json(entry) for name, entry in record["fitted"].items()},
            {name: Coverage(**entry) for name, entry in record["covers"].items()},
            tuple(record["before"]),
            record["options"],
        )

    def save(self, path: PathLike) -> None:
        """Write the record as JSON, atomically."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Return a saved normalizer.

        Raises:
            RunError: no such record.
        """
        try:
            record = read_json(path)
        except (OSError, ValueError) as error:
            raise RunError(f"'{path}' is no normalizer ({type(error).__name__})") from error
        return cls.from_json(record)


def method_from_json(record: Json) -> Method:
    """Return the intensity method of a saved record."""
    method: Method = module_of(record["method"]).METHOD.from_json(record)
    return method
