# SPDX-License-Identifier: Apache-2.0
"""The record of how a run's images are normalized: fitted on training rows, saved as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Self

import numpy as np

from vesalius.errors import DataError, RunError
from vesalius.normalization import mad
from vesalius.normalization.window import Window
from vesalius.types import Array, Json


@dataclass(frozen=True, slots=True)
class Normalizer:
    """Window for modalities with a physical scale, median/MAD for every other image.

    Attributes:
        windows: modality -> fitted window (CT in HU).
        clip: MADs at which other images are clipped.
    """

    windows: Mapping[str, Window] = field(default_factory=dict)
    clip: float = mad.CLIP

    @classmethod
    def fit(cls, samples: Iterable[tuple[str, Array]], *, clip: float = mad.CLIP) -> Self:
        """Fit a window for each modality among `samples` of `(modality, training values)`.

        Hand in only modalities with a physical scale; others need no fitting.
        """
        values: dict[str, list[Array]] = {}
        for modality, part in samples:
            values.setdefault(modality, []).append(part)
        return cls({name: Window.fit(parts) for name, parts in sorted(values.items())}, clip)

    def apply(self, data: Array, *, modality: str = "", color: bool = False) -> Array:
        """Return `data` `(channel, i, j, k)` on the common scale, float32.

        `color` images keep the relation between their channels; others are treated channel by
        channel.

        Raises:
            DataError: the image is empty, constant or holds values that are not finite.
        """
        _verdict(data)
        window = self.windows.get(modality)
        if window is not None:
            return window.apply(data)
        if color:
            return mad.normalize(data, clip=self.clip)
        out = np.zeros(data.shape, np.float32)
        for channel, values in enumerate(data):
            if values.min() != values.max():  # an empty channel beside others stays at 0
                out[channel] = mad.normalize(values, clip=self.clip)
        return out

    def to_json(self) -> Json:
        """Return the record for `normalizer.json`."""
        windows = {name: asdict(window) for name, window in self.windows.items()}
        return {"format": 1, "method": "mad", "clip": self.clip, "windows": windows}

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the normalizer of a saved record."""
        if record.get("format") != 1 or record.get("method") != "mad":
            raise RunError(
                "normalizer must have format 1 and method 'mad', got format "
                f"{record.get('format')} and method '{record.get('method')}'; "
                "load the run with the version that wrote it (see plan.json)"
            )
        windows = {name: Window(**values) for name, values in record["windows"].items()}
        return cls(windows, record["clip"])


def _verdict(data: Array) -> None:
    if data.size == 0:
        raise DataError(f"the image is empty: shape {data.shape}; leave it out")
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        bad = int(data.size - np.isfinite(data).sum())
        raise DataError(
            f"{bad} of {data.size} values of the image are not finite; replace them, or leave the "
            "image out (`vesalius check` names it)"
        )
    if data.min() == data.max():
        raise DataError(
            f"the image is constant: every value is {data.flat[0]}; leave it out "
            "(`vesalius check` names it)"
        )
