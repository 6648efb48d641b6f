# SPDX-License-Identifier: Apache-2.0
"""PNG, JPEG, TIFF and BMP against Pillow, tifffile and ITK: depth, palettes, orientation, pages."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image, ImageOps

from vesalius import io
from vesalius.errors import CorruptFile, UnsupportedFormat, UsageError
from vesalius.volume import Volume


def pixels(volume):
    """Return `(rows, columns[, channel])` of a single slice."""
    values = volume.data[..., 0].transpose(2, 1, 0)
    return values[..., 0] if values.shape[2] == 1 else values


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_common_modes(tmp_path, rng, suffix, mode):
    image = Image.fromarray(rng.integers(0, 255, (7, 5, 3)).astype(np.uint8)).convert(mode)
    image.save(tmp_path / f"a{suffix}")
    found = io.read(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(pixels(found), np.asarray(image))
    assert found.data.dtype == np.uint8
    assert found.shape == (5, 7, 1)
    assert not found.calibrated


def test_16_bit_gray_png_stays_16_bit(tmp_path):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / "a.png")
    found = io.read(tmp_path / "a.png")
    assert found.data.dtype == np.uint16
    np.testing.assert_array_equal(pixels(found), values)


@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_color_png_stays_16_bit(tmp_path, rng, channels):
    values = rng.integers(0, 65535, (6, 4, channels)).astype(np.uint16)
    image = SimpleITK.GetImageFromArray(values, isVector=True)
    SimpleITK.WriteImage(image, str(tmp_path / "a.png"))
    found = io.read(tmp_path / "a.png")
    assert found.data.dtype == np.uint16
    np.testing.assert_array_equal(pixels(found), values)


def test_palette_gives_colors_to_read_and_indices_to_read_labels(tmp_path, rng):
    indices = rng.integers(0, 4, (6, 5)).astype(np.uint8)
    image = Image.fromarray(indices)
    image.putpalette([0, 0, 0, 250, 0, 0, 0, 250, 0, 9, 8, 7])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(
        pixels(io.read(tmp_path / "a.png")), np.asarray(image.convert("RGB"))
    )
    labels = io.read_labels(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(labels), indices)


def test_color_masks_are_labels_only_where_channels_agree(tmp_path, rng):
    gray = rng.integers(0, 3, (4, 4)).astype(np.uint8)
    Image.fromarray(np.stack([gray] * 3, -1)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(io.read_labels(tmp_path / "a.png")), gray)
    Image.fromarray(np.stack([gray, gray, gray + 1], -1)).save(tmp_path / "b.png")
    with pytest.raises(CorruptFile, match="color"):
        io.read_labels(tmp_path / "b.png")


def with_orientation(image, orientation):
    image = image.copy()
    image.getexif()[274] = orientation
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("pages", [1, 3])
def test_the_orientation_of_tiff_is_applied_to_every_page(tmp_path, orientation, pages):
    values = np.arange(48 * pages).reshape(pages, 6, 8).astype(np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", values, photometric="minisblack", metadata=None,
        extratags=[(274, 3, 1, orientation, False)],
    )  # fmt: skip
    found = io.read(tmp_path / "a.tif").data[0].transpose(2, 1, 0)
    for page, expected in zip(found, values, strict=True):
        turned = ImageOps.exif_transpose(with_orientation(Image.fromarray(expected), orientation))
        np.testing.assert_array_equal(page, np.asarray(turned))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_the_exif_orientation_is_applied(tmp_path, orientation, suffix):
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) * 5)
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a{suffix}"
    image.save(path, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(with_orientation(image, orientation)))
    found = io.read(path)
    close = 12 if suffix == ".jpg" else 0
    np.testing.assert_allclose(pixels(found).astype(int), expected, atol=close)
    assert found.source.metadata.get("exif_orientation", 1) == orientation


def test_jpeg_equals_pillow_and_cmyk_becomes_rgb(tmp_path, rng):
    image = Image.fromarray(rng.integers(0, 255, (16, 24, 3)).astype(np.uint8))
    image.save(tmp_path / "a.jpg")
    np.testing.assert_array_equal(
        pixels(io.read(tmp_path / "a.jpg")), np.asarray(Image.open(tmp_path / "a.jpg"))
    )
    image.convert("CMYK").save(tmp_path / "b.jpg")
    found = io.read(tmp_path / "b.jpg")
    expected = np.asarray(Image.open(tmp_path / "b.jpg").convert("RGB"))
    np.testing.assert_array_equal(pixels(found), expected)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_gray_tiff_of_every_depth(tmp_path, rng, dtype, order):
    values = (rng.normal(0, 1, (9, 7)) * 30 + 60).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, byteorder=order)
    found = io.read(tmp_path / "a.tif")
    assert found.data.dtype == values.dtype
    np.testing.assert_array_equal(pixels(found), values)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_16_bit_color_tiff(tmp_path, rng, compression):
    values = rng.integers(0, 65535, (9, 7, 3)).astype(np.uint16)
    if compression:
        image = SimpleITK.GetImageFromArray(values, isVector=True)
        SimpleITK.WriteImage(
            image, str(tmp_path / "a.tif"), True, compressor=compression.split("_")[-1].upper()
        )
    else:
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    found = io.read(tmp_path / "a.tif")
    assert found.data.dtype == np.uint16
    np.testing.assert_array_equal(pixels(found), values)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2"])
@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "raw"])
def test_pages_become_slices(tmp_path, rng, dtype, compression):
    values = rng.integers(0, 250, (4, 9, 7)).astype(dtype)
    if dtype == "i2" or compression == "raw":
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    else:
        first, *rest = [Image.fromarray(page) for page in values]
        first.save(tmp_path / "a.tif", save_all=True, append_images=rest, compression=compression)
    found = io.read(tmp_path / "a.tif")
    assert found.shape == (7, 9, 4)
    np.testing.assert_array_equal(found.data[0].transpose(2, 1, 0), values)


def test_pyramids_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(np.zeros((64, 64), np.uint8))
        tiff.write(np.zeros((32, 32), np.uint8))
    with pytest.raises(UnsupportedFormat, match="2 kinds"):
        io.read(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((4, 4), np.float64))
    with pytest.raises(UnsupportedFormat, match="64 bits"):
        io.read(tmp_path / "b.tif")


def test_white_as_zero_is_turned(tmp_path, rng):
    for dtype in (np.uint8, np.uint16):
        values = rng.integers(0, np.iinfo(dtype).max, (5, 7)).astype(dtype)
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
        found = io.read(tmp_path / "a.tif").data[0, :, :, 0].T
        assert found.dtype == dtype
        assert np.array_equal(found, np.iinfo(dtype).max - values)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (np.ones((5, 7), np.float16), {"photometric": "minisblack"}),
        (np.ones((5, 7), np.float32), {"photometric": "miniswhite"}),
        (np.ones((3, 5, 7), np.uint16), {"photometric": "rgb", "planarconfig": "separate"}),
        (np.ones((5, 7, 2), np.uint8), {"photometric": "minisblack", "planarconfig": "contig"}),
        (np.ones((5, 7, 5), np.uint16), {"photometric": "minisblack", "planarconfig": "contig"}),
    ],
)
def test_tiff_that_decoders_would_misread_is_refused(tmp_path, values, options):
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    with pytest.raises(UnsupportedFormat, match=r"is not read\. "):
        io.read(tmp_path / "a.tif")


def test_pages_of_different_depth_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(np.zeros((6, 6), np.uint8))
        tiff.write(np.full((6, 6), 999, np.uint16))
    with pytest.raises(UnsupportedFormat, match="types"):
        io.read(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_truncated_and_damaged_files_are_corrupt(tmp_path, rng, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(rng.integers(0, 255, (64, 64)).astype(np.uint8)).save(path)
    whole = path.read_bytes()
    for count in (10, 30, len(whole) // 2):
        path.write_bytes(whole[:count])
        with pytest.raises(CorruptFile) as raised:
            io.read(path)
        assert raised.value.path == str(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, bool])
def test_png_is_written_as_it_is(tmp_path, rng, dtype):
    values = rng.integers(0, 2 if dtype is bool else 250, (1, 5, 7, 1)).astype(dtype)
    if dtype is np.uint16:
        values *= 200
    path = io.write(Volume(values, np.eye(4)), tmp_path / "a.png")
    np.testing.assert_array_equal(io.read(path).data, values)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), values[0, :, :, 0].T)


def test_what_png_cannot_hold_is_refused(tmp_path):
    for data, words in (
        (np.zeros((1, 4, 4, 2), np.uint8), "one slice"),
        (np.zeros((1, 4, 4, 1), np.float32), "window"),
        (np.full((1, 4, 4, 1), -1, np.int16), "-1"),
        (np.zeros((2, 4, 4, 1), np.uint8), "channels"),
        (np.full((3, 4, 4, 1), 999, np.uint16), "colors"),
    ):
        with pytest.raises(UsageError, match=words):
            io.write(Volume(data, np.eye(4)), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_real_images_equal_pillow(data):
    root = data("wbc").parent
    files = [
        *sorted((root / "wbc").rglob("*.png"))[::60],
        *sorted((root / "sunnybrook").rglob("*.png"))[::200],
        *sorted((root / "bccd").rglob("*.jpg"))[::80],
        *sorted((root / "medpix").rglob("*.jpg"))[::400],
    ]
    assert len(files) > 15
    for path in files:
        with Image.open(path) as other:
            np.testing.assert_array_equal(pixels(io.read(path)), np.asarray(other))
