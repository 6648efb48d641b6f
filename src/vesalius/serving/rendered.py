# SPDX-License-Identifier: Apache-2.0
"""Frames as pictures for a browser: windowed, scaled, PNG or JPEG (PS3.18 section 8.3.5)."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vesalius.errors import UsageError
from vesalius.io.dicom.display import Shape, Window, displayed
from vesalius.io.dicom.header import Header
from vesalius.serving.attributes import LIMITS

_SHAPES: dict[str, Shape] = {
    "linear": "LINEAR",
    "linear-exact": "LINEAR_EXACT",
    "sigmoid": "SIGMOID",
}
_TYPES = {"image/jpeg": "JPEG", "image/png": "PNG"}
_LARGEST_SIDE = 4096
_AT_ONCE = threading.BoundedSemaphore(2)  # pictures made at a time: each may take LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How a picture is wanted.

    Attributes:
        media_type: image/jpeg or image/png.
        window: instead of the instance's own.
        size: (width, height) that the picture must fit into, or None for its own.
        quality: of JPEG, 1 to 100.
    """

    media_type: str = "image/jpeg"
    window: Window | None = None
    size: tuple[int, int] | None = None
    quality: int = 90

    @classmethod
    def parse(cls, parameters: Mapping[str, str], accepted: str, *, size: int = 0) -> Wish:
        """Read the query parameters of PS3.18 section 8.3.5 and an Accept header.

        Args:
            parameters: `window=center,width[,linear|linear-exact|sigmoid]`, `viewport=width,height`
                and `quality`; others are of no effect.
            accepted: of the Accept header, or empty.
            size: of a picture whose viewport is not given; 0 for its own.

        Raises:
            UsageError: a parameter that is none, or a media type that is not made.
        """
        wanted = parameters.get("accept") or accepted or "*/*"
        made = [kind for kind in _TYPES if kind in wanted.lower()]
        if not made and "*/*" not in wanted and "image/*" not in wanted:
            raise UsageError(f"pictures are {' or '.join(_TYPES)}")
        quality = parameters.get("quality", "90")
        if not quality.isdigit() or not 1 <= int(quality) <= 100:
            raise UsageError(f"quality must be 1 to 100, got '{quality[:20]}'")
        return cls(
            media_type=made[0] if made else "image/jpeg",
            window=_window(parameters.get("window", "")),
            size=_size(parameters.get("viewport", "")) or ((size, size) if size else None),
            quality=int(quality),
        )


def picture(path: Path, header: Header, frame: int, wish: Wish) -> bytes:
    """Return a frame, counted from 0, as the content of a picture.

    Raises what `pixels.decode` raises.
    """
    from PIL import Image

    with _AT_ONCE:
        shown = displayed(path, header, frame, window=wish.window, limits=LIMITS)
        image = Image.fromarray(shown)
        if wish.size is not None:
            scale = min(wish.size[0] / image.width, wish.size[1] / image.height)
            size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
            image = image.resize(size, Image.Resampling.BILINEAR)
        stream = io.BytesIO()
        options = {"quality": wish.quality} if wish.media_type == "image/jpeg" else {}
        image.save(stream, _TYPES[wish.media_type], **options)
    return stream.getvalue()


def _window(text: str) -> Window | None:
    if not text:
        return None
    center, _, rest = text.partition(",")
    width, _, shape = rest.partition(",")
    try:
        return Window(_number(center), _number(width), _SHAPES[shape.lower() or "linear"])
    except (ValueError, KeyError, UsageError) as error:
        raise UsageError(
            "window must be center,width or center,width,linear|linear-exact|sigmoid; a width "
            "is 1 or more"
        ) from error


def _size(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    try:
        width, height = (_number(part) for part in text.split(",")[:2])
    except ValueError:
        width = height = 0.0
    if not (1 <= width <= _LARGEST_SIDE and 1 <= height <= _LARGEST_SIDE):
        raise UsageError(f"viewport must be width,height of 1 to {_LARGEST_SIDE} pixels")
    return int(width), int(height)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number) or abs(number) > 1e9:
        raise ValueError(text)
    return number
