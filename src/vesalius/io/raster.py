# SPDX-License-Identifier: Apache-2.0
"""PNG, JPEG, TIFF and BMP with their bit depth kept: 16 bit stays 16 bit.

Rules: axes become `(channel, i = column, j = row, k = page)`; pixels stand as they are displayed
(the EXIF orientation is applied and noted); palettes become colors, or stay indices for labels;
CMYK becomes RGB; 1-bit images become 0 and 1; alpha is kept as a channel. Dots per inch are a
printing size, not the patient's: `calibrated` is False and a pixel counts as 1 mm.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from vesalius.errors import CorruptFile, UnsupportedFormat, UsageError
from vesalius.files import write_atomically
from vesalius.geometry import flat_affine
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import Array, PathLike
from vesalius.volume import LabelMap, Source, Volume

_ORIENTATION = 274  # EXIF tag
_CHANNELS = {3: ("red", "green", "blue"), 4: ("red", "green", "blue", "alpha")}
_PILLOW_MODES = frozenset({"1", "L", "LA", "RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "F", "I"})


def read(
    path: PathLike,
    *,
    limits: Limits = DEFAULT_LIMITS,
    palette: Literal["colors", "indices"] = "colors",
) -> Volume:
    """Read one raster file; `palette="indices"` keeps a palette image's stored values."""
    name = os.fspath(path)
    with open(path, "rb") as stream, _typed_errors(name):
        sign = stream.read(8)
        stream.seek(0)
        size = os.fstat(stream.fileno()).st_size
        metadata: dict[str, object] = {}
        if sign[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            kind = "tiff"
            pages = _read_tiff(stream, name, size, limits, palette, metadata)
        elif sign == b"\x89PNG\r\n\x1a\n":
            kind = "png"
            pages = _read_png(stream, name, size, limits, palette, metadata)[None]
        elif sign[:3] == b"\xff\xd8\xff":
            kind = "jpeg"
            pages = _read_jpeg(stream, name, size, limits, metadata)[None]
        elif sign[:2] == b"BM":
            from PIL.BmpImagePlugin import BmpImageFile

            kind = "bmp"
            image = BmpImageFile(stream)
            _check(image, 1, 4, name, size, limits)
            pages = _array(image, palette, name)[None]
        else:
            raise CorruptFile("the content is not PNG, JPEG, TIFF or BMP", path=name)
    # pages: (k, rows, columns, channel)
    data = pages.transpose(3, 2, 1, 0)
    return Volume(
        data,
        flat_affine(),
        channels=_CHANNELS.get(len(data), ()),
        calibrated=False,
        source=Source(files=(name,), format=kind, metadata=metadata),
    )


def write(volume: Volume, path: PathLike) -> Path:
    """Write one slice as PNG, atomically: 8 bit gray, RGB or RGBA, or 16 bit gray.

    Integers of any type are written where their values fit; nothing is scaled or rounded.
    """
    from PIL import Image

    data = volume.data
    if not volume.is_2d:
        raise UsageError(
            f"PNG holds one slice, got {volume.shape[2]}: write slices one by one, or use NIfTI"
        )
    if data.dtype.kind not in "iub":
        raise UsageError(
            f"PNG holds integers from 0 to 65535, got {data.dtype}: window and round the values"
        )
    if isinstance(volume, LabelMap) and len(data) > 1:
        raise UsageError(
            f"PNG holds one layer of labels, this label map has {len(data)} (overlaps); write them "
            "one by one, or use NIfTI"
        )
    if len(data) not in (1, 3, 4):
        raise UsageError(f"PNG holds 1, 3 or 4 channels, got {len(data)}")
    low, high = int(data.min()), int(data.max())
    deep = high > 255 or data.dtype == np.uint16
    if low < 0 or high > 65535 or (deep and len(data) > 1):
        raise UsageError(
            f"PNG holds gray values from 0 to 65535 and colors from 0 to 255, got {low} to {high} "
            f"in {len(data)} channel(s)"
        )
    pixels = data[..., 0].transpose(2, 1, 0)  # (rows, columns, channel)
    if len(data) == 1:
        pixels = pixels[..., 0]
    image = Image.fromarray(np.ascontiguousarray(pixels, np.uint16 if deep else np.uint8))
    return write_atomically(path, lambda stream: image.save(stream, format="PNG"))


def _read_png(
    stream: IO[bytes],
    name: str,
    size: int,
    limits: Limits,
    palette: str,
    metadata: dict[str, object],
) -> Array:
    from PIL.PngImagePlugin import PngImageFile

    head = stream.read(26)
    stream.seek(0)
    if len(head) < 26 or head[12:16] != b"IHDR":
        raise CorruptFile("a PNG file starts with an IHDR chunk, which is missing", path=name)
    width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    depth, color = head[24], head[25]
    metadata["bits"] = depth
    limits.check(
        width * height * 4 * (2 if depth == 16 else 1) * 2,
        size,
        what=f"an image of {width}x{height}",
        path=name,
    )
    if depth == 16 and color != 0:  # Pillow would reduce 16-bit colors to 8
        deep: Array = _itk_pages(name)[0]
        return deep
    image = PngImageFile(stream)
    return _array(_upright(image, metadata), palette, name)


def _read_jpeg(
    stream: IO[bytes], name: str, size: int, limits: Limits, metadata: dict[str, object]
) -> Array:
    from PIL.JpegImagePlugin import JpegImageFile

    image = JpegImageFile(stream)
    _check(image, 1, 4, name, size, limits)
    metadata["bits"] = 8
    return _array(_upright(image, metadata), "colors", name)


def _read_tiff(
    stream: IO[bytes],
    name: str,
    size: int,
    limits: Limits,
    palette: str,
    metadata: dict[str, object],
) -> Array:
    """Return `(pages, rows, columns, channel)`; all pages must agree in size and type."""
    import tifffile

    with tifffile.TiffFile(stream) as tiff:
        if not len(tiff.pages):
            raise CorruptFile("the TIFF file holds no page", path=name)
        pages = [tiff.pages[n] for n in range(min(len(tiff.pages), limits.max_members))]
        first: Any = pages[0]
        forms = {
            (page.imagewidth, page.imagelength, page.samplesperpixel, page.bitspersample,
             page.sampleformat, page.photometric)
            for page in pages
        }  # fmt: skip
        if len(forms) > 1 or tiff.is_svs or tiff.is_ndpi or getattr(first, "subifds", None):
            raise UnsupportedFormat(
                "TIFF pyramids, whole-slide images and pages of different sizes or types "
                f"({len(forms)} kinds) are not read. Export one level as TIFF or PNG",
                path=name,
                kinds=len(forms),
            )
        bits, samples = int(first.bitspersample), int(first.samplesperpixel)
        form = int(first.sampleformat)
        segment = int(first.tilewidth or first.imagewidth) * int(
            first.tilelength or first.rowsperstrip or first.imagelength
        )
        orientation = int(first.tags[274].value) if 274 in first.tags else 1
        width, height, count = int(first.imagewidth), int(first.imagelength), len(pages)
        is_white_zero = int(first.photometric) == 0
        is_planar = int(first.planarconfig) == 2 and samples > 1
        is_mapped = int(first.photometric) in (3, 5)  # palette, CMYK: samples are no channels
    metadata |= {"bits": bits, "pages": count}
    one = width * height * max(samples, 3 if first.photometric == 3 else samples)
    one *= max(1, bits // 8)
    limits.check(
        (count + 2) * one + segment * samples * max(1, bits // 8),
        size,
        what=f"{count} page(s) of {width}x{height}",
        path=name,
    )
    plain = bits <= 16 and form == 1 and samples == 1
    if (is_white_zero and not plain) or (is_planar and bits > 8):
        raise UnsupportedFormat(
            f"TIFF with {bits} bits a sample (sample format {form}) and "
            + ("white as 0" if is_white_zero else "its channels in separate planes")
            + " is not read. Store it with black as 0 and interleaved channels",
            path=name,
        )
    gray_or_byte = bits <= 8 or samples == 1
    if gray_or_byte and (bits, form) in {
        *((n, 1) for n in (1, 2, 4, 8, 16)),
        (32, 3),
    }:
        from PIL.TiffImagePlugin import TiffImageFile

        stream.seek(0)
        image = TiffImageFile(stream)
        out: Array | None = None
        for n in range(count):
            image.seek(n)
            page = _array(image, palette, name)
            out = np.empty((count, *page.shape), page.dtype) if out is None else out
            out[n] = page
        assert out is not None  # noqa: S101  count is positive
        if is_white_zero and bits == 16:  # Pillow turns up to 8 bits itself
            out = np.subtract(65535, out, dtype=np.uint16)
    elif orientation != 1:
        raise UnsupportedFormat(
            f"TIFF with {bits} bits a sample and orientation {orientation} is not read. Store it "
            "upright",
            path=name,
        )
    elif (bits, form) in {*((n, kind) for n in (8, 16, 32) for kind in (1, 2)), (32, 3)}:
        out = _itk_pages(name)
    else:
        raise UnsupportedFormat(
            f"TIFF with {bits} bits a sample (sample format {form}) is not read. Convert it to 8, "
            "16 or 32 bits",
            path=name,
        )
    if out.shape[-1] != samples and not is_mapped:
        raise UnsupportedFormat(
            f"TIFF with {samples} samples a pixel, whose meaning it does not state, is not read. "
            "Store gray, RGB or RGBA, or one channel a file",
            path=name,
        )
    if orientation != 1:
        metadata["exif_orientation"] = orientation
    return out


def _itk_pages(name: str) -> Array:
    """Read deep colors and signed TIFF through ITK: `(pages, rows, columns, channel)`."""
    import SimpleITK as sitk  # noqa: N813  its customary name

    try:
        image = sitk.ReadImage(name)
    except RuntimeError as error:
        raise CorruptFile("the pixel data cannot be decoded", path=name) from error
    values: Array = sitk.GetArrayFromImage(image)
    if image.GetDimension() == 2:
        values = values[None]
    return values if image.GetNumberOfComponentsPerPixel() > 1 else values[..., None]


def _array(image: Any, palette: str, name: str) -> Array:
    """Return a decoded Pillow image as `(rows, columns, channel)` in its stored depth."""
    mode = image.mode
    if mode.startswith("I;16"):
        values = np.asarray(image)
        return values.astype(np.uint16, copy=False)[..., None]
    if mode in ("P", "PA") and palette == "colors":
        image = image.convert("RGBA" if "transparency" in image.info or mode == "PA" else "RGB")
    elif mode in ("CMYK", "YCbCr"):
        image = image.convert("RGB")
    elif mode not in _PILLOW_MODES:
        raise UnsupportedFormat(
            f"pixels of mode {mode} are not read; convert them to gray or RGB", path=name
        )
    values = np.asarray(image)
    if values.dtype == bool:
        values = values.astype(np.uint8)
    return values if values.ndim == 3 else values[..., None]


def _upright(image: Any, metadata: dict[str, object]) -> Any:
    """Return the image as it is to be displayed, with its EXIF orientation noted."""
    orientation = int(image.getexif().get(_ORIENTATION, 1) or 1)
    if orientation == 1:
        return image
    from PIL import ImageOps

    metadata["exif_orientation"] = orientation
    return ImageOps.exif_transpose(image)


def _check(
    image: Any, pages: int, bytes_a_pixel: int, name: str, size: int, limits: Limits
) -> None:
    width, height = image.size
    # Pillow's copy and ours.
    limits.check(
        2 * width * height * pages * bytes_a_pixel,
        size,
        what=f"an image of {width}x{height}",
        path=name,
    )


@contextmanager
def _typed_errors(name: str) -> Iterator[None]:
    """Turn the decoders' many exceptions into `CorruptFile`; their warnings are errors too."""
    import struct
    import zlib

    try:
        with warnings.catch_warnings():
            # Pillow and tifffile warn about damaged metadata (EXIF, ICC) that pixels do not need.
            warnings.simplefilter("ignore")
            yield
    except (UnsupportedFormat, CorruptFile):
        raise
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        struct.error,
        zlib.error,
        OverflowError,
        ZeroDivisionError,
    ) as error:
        raise CorruptFile(f"the image cannot be decoded: {error}", path=name) from error
