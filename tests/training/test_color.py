# SPDX-License-Identifier: Apache-2.0
"""Changes of color against hand-known turns, scikit-image's stains, and laws of the values."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import hed_from_rgb, rgb2hed
from torch import Tensor

from vesalius.training.color import restain, shift_color, shift_stain

Shift = Callable[[Tensor, float, float, np.random.Generator], Tensor]
SHIFTS = pytest.mark.parametrize("shift", [shift_color, shift_stain, restain])
SEEDS = st.integers(0, 9999)
DARKEST = 1 / 255  # of an image's range: a stain's density ends there


class Drawn:
    """In place of a generator: each draw lies at the next of `places` in its range, 0 to 1."""

    def __init__(self, places: Iterable[float]) -> None:
        self.places = iter(places)

    def uniform(self, low: float, high: float, size: int | None = None) -> object:
        if size is None:
            return low + next(self.places) * (high - low)
        return np.array([low + next(self.places) * (high - low) for _ in range(size)])

    def random(self) -> float:
        return 0.0


def pictures(seed: int, *, count: int = 2, side: int = 6) -> Tensor:
    """Return `(count, 3, side, side)` in 0 to 1; each has a black and a white pixel."""
    found = np.random.default_rng(seed).uniform(0.1, 0.9, (count, 3, side, side))
    found[:, :, 0, 0], found[:, :, 0, 1] = 0, 1
    return torch.tensor(found, dtype=torch.float32)


def colored(images: Tensor, *, turn: float = 0, saturation: float = 1, gains: float = 1) -> Tensor:
    """Return the images with the hue turned by `turn` circles, at full strength."""
    places = (turn + 0.5, saturation / 2, *[gains - 0.5] * 3)
    return shift_color(images, 1.0, 1.0, Drawn(places * len(images)))  # type: ignore[arg-type]  # a stand-in


@SHIFTS
@given(seed=SEEDS, low=st.floats(-1000, 1000), span=st.floats(0.1, 1000))
@settings(max_examples=30, deadline=None)
def test_strength_0_changes_nothing(shift: Shift, seed: int, low: float, span: float) -> None:
    images = low + span * pictures(seed)
    found = shift(images, 0.0, 1.0, np.random.default_rng(seed))
    least = DARKEST * span if shift is shift_stain else 0
    torch.testing.assert_close(found, images, atol=least + 1e-6 * (abs(low) + span), rtol=1e-5)


@SHIFTS
def test_chance_0_changes_nothing_and_chance_a_half_every_second_image(shift: Shift) -> None:
    images = pictures(0, count=1).expand(400, -1, -1, -1)
    never = shift(images, 0.5, 0.0, np.random.default_rng(0))
    torch.testing.assert_close(never, images, atol=DARKEST + 1e-6, rtol=0)
    found = shift(images, 0.5, 0.5, np.random.default_rng(0))
    changed = ((found - never).abs() > 1e-3).flatten(1).any(1)
    assert 160 < int(changed.sum()) < 240  # 200, four standard deviations of 10


@SHIFTS
def test_the_same_generator_gives_the_same_images(shift: Shift) -> None:
    images = pictures(1, count=4)
    one, two, other = (shift(images, 0.5, 1.0, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert torch.equal(one, two)
    assert ((one - other).abs().amax((1, 2, 3)) > 0.01).all()
    assert ((one[0] - images[0]).abs() > 0.01).any()


@SHIFTS
def test_an_image_is_changed_as_if_it_were_alone(shift: Shift) -> None:
    images = torch.cat([pictures(2), 50 + 9 * pictures(3)])
    found = shift(images, 0.5, 1.0, np.random.default_rng(0))
    brighter = images.clone()
    brighter[1] = 7 * brighter[1] - 3
    after = shift(brighter, 0.5, 1.0, np.random.default_rng(0))
    for place in (0, 2, 3):
        torch.testing.assert_close(after[place], found[place])


@SHIFTS
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 3, 5, 4, 3)])
def test_images_and_volumes_keep_their_shape(shift: Shift, shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    found = shift(images, 0.5, 1.0, np.random.default_rng(0))
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    flat = shift(images.flatten(2)[..., None], 0.5, 1.0, np.random.default_rng(0))
    torch.testing.assert_close(found.flatten(2), flat[..., 0])  # voxel by voxel


@SHIFTS
@given(
    seed=SEEDS,
    strength=st.floats(0, 1),
    gain=st.floats(0.01, 1000),
    offset=st.floats(-10, 10),
)
@settings(max_examples=40, deadline=None)
def test_the_scale_of_the_values_carries_through(
    shift: Shift, seed: int, strength: float, gain: float, offset: float
) -> None:
    images = pictures(seed)
    found = shift(images, strength, 1.0, np.random.default_rng(seed))
    moved = shift(gain * (images + offset), strength, 1.0, np.random.default_rng(seed))
    torch.testing.assert_close(moved / gain - offset, found, atol=2e-4, rtol=0)


@SHIFTS
def test_one_value_everywhere_stays_finite(shift: Shift) -> None:
    found = shift(torch.full((2, 3, 4, 4), 7.0), 1.0, 1.0, np.random.default_rng(0))
    assert torch.isfinite(found).all()


# hue, saturation, gains


def test_a_third_of_the_circle_passes_each_color_on() -> None:
    images = pictures(4) * torch.tensor([1.0, 0.6, 0.3])[:, None, None]  # ranges of their own
    turned = colored(images, turn=1 / 3)
    torch.testing.assert_close(turned, images.roll(1, dims=1), atol=1e-5, rtol=0)  # red -> green
    back = colored(images, turn=-1 / 3)
    torch.testing.assert_close(back, images.roll(-1, dims=1), atol=1e-5, rtol=0)


@given(seed=SEEDS, turn=st.floats(-0.5, 0.5), saturation=st.floats(0, 2))
@settings(max_examples=30, deadline=None)
def test_gray_stays_gray_and_the_mean_of_the_channels_stays(
    seed: int, turn: float, saturation: float
) -> None:
    images = pictures(seed)
    gray = images[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(
        colored(gray, turn=turn, saturation=saturation), gray, atol=1e-5, rtol=0
    )
    found = colored(images, turn=turn, saturation=saturation)
    torch.testing.assert_close(found.mean(1), images.mean(1), atol=1e-5, rtol=0)
    # What is not gray keeps its distance from gray under a turn, and has it scaled.
    apart = (images - images.mean(1, keepdim=True)).norm(dim=1)
    after = (found - found.mean(1, keepdim=True)).norm(dim=1)
    torch.testing.assert_close(after, saturation * apart, atol=1e-5, rtol=0)


def test_saturation_and_gains_by_hand() -> None:
    images = pictures(5)
    mean = images.mean(1, keepdim=True)
    torch.testing.assert_close(
        colored(images, saturation=0), mean.expand_as(images), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(colored(images, saturation=2), 2 * images - mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(colored(images, gains=0.75), 0.75 * images, atol=1e-5, rtol=0)
    places = (0.5, 0.5, 0.0, 0.5, 1.0)  # red at half, blue at one and a half
    found = shift_color(images[:1], 1.0, 1.0, Drawn(places))  # type: ignore[arg-type]  # a stand-in
    by_hand = images[:1] * torch.tensor([0.5, 1.0, 1.5])[:, None, None]
    torch.testing.assert_close(found, by_hand, atol=1e-5, rtol=0)


def test_a_small_strength_changes_little() -> None:
    images = pictures(6, count=50)
    for strength, most in ((0.02, 0.1), (0.1, 0.5)):
        found = shift_color(images, strength, 1.0, np.random.default_rng(0))
        assert 0.1 * most < float((found - images).abs().max()) < most


# stain


def stained(seed: int, side: int = 6) -> tuple[Tensor, np.ndarray]:
    """Return one stained picture `(1, 3, side, side)` and its dyes as scikit-image sees them."""
    rng = np.random.default_rng(seed)
    dyes = rng.uniform(0.2, 0.9, (side, side, 3))
    density = dyes @ np.linalg.inv(hed_from_rgb)
    pixels = np.exp(-density)
    pixels[0, 0], pixels[0, 1] = 0, 1  # black and white, so that the range is that of light
    images = torch.tensor(pixels.transpose(2, 0, 1)[None], dtype=torch.float32)
    return images, hed(images)


def hed(images: Tensor) -> np.ndarray:
    """Return hematoxylin, eosin and DAB `(pixels, 3)` without the first two pixels."""
    found: np.ndarray = rgb2hed(images[0].numpy().astype(float).transpose(1, 2, 0))
    return found.reshape(-1, 3)[2:]


@pytest.mark.parametrize("dye", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_one_dyes_amount_is_scaled_as_scikit_image_measures_it(dye: int, factor: float) -> None:
    images, before = stained(dye)
    places = [0.5] * 6
    places[dye] = (factor - 0.7) / 0.6
    found = shift_stain(images, 0.3, 1.0, Drawn(places))  # type: ignore[arg-type]  # a stand-in
    after = hed(found)
    wanted = before.copy()
    wanted[:, dye] *= factor
    assert (wanted > 0.005).all()  # scikit-image cuts at 0
    np.testing.assert_allclose(after, wanted, rtol=1e-3, atol=1e-5)
    assert float(found[0, :, 0, 1].min()) == pytest.approx(1)  # no dye, nothing to scale


@pytest.mark.parametrize("dye", [0, 1, 2])
def test_a_dye_is_added_everywhere_by_its_own_color(dye: int) -> None:
    images, before = stained(10 + dye)
    places = [0.5] * 6
    places[3 + dye] = 1.0
    found = shift_stain(images, 0.5, 1.0, Drawn(places))  # type: ignore[arg-type]  # a stand-in
    color = np.linalg.inv(hed_from_rgb)[dye]
    added = 0.2 * 0.5 * color / np.linalg.norm(color)
    density = -torch.log(found / images)[0].flatten(1).numpy()[:, 1:]  # all but the black pixel
    np.testing.assert_allclose(density, np.repeat(added[:, None], 35, axis=1), atol=1e-5)
    change = hed(found) - before
    np.testing.assert_allclose(np.delete(change, dye, axis=1), 0, atol=1e-5)
    assert (change[:, dye] > 0.001).all()


def test_black_holds_as_much_dye_as_8_bit_can_show() -> None:
    images, _ = stained(20)
    halves = Drawn((0.0, 0.0, 0.0, 0.5, 0.5, 0.5))
    found = shift_stain(images, 0.5, 1.0, halves)  # type: ignore[arg-type]  # a stand-in
    torch.testing.assert_close(found[0, :, 0, 0], torch.full((3,), DARKEST**0.5))
    torch.testing.assert_close(found[0, :, 1:], images[0, :, 1:].sqrt(), atol=1e-5, rtol=0)


@given(seed=SEEDS, strength=st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_nothing_is_brighter_than_unstained_or_darker_than_black(
    seed: int, strength: float
) -> None:
    images = 40 * pictures(seed) - 9
    found = shift_stain(images, strength, 1.0, np.random.default_rng(seed))
    assert float(found.max()) <= 31 + 1e-4
    assert float(found.min()) >= -9 - 1e-4


# other dyes


class Dyes:
    """In place of a generator: means, exponents of 3 and of 2, roots of the tints, darkest."""

    def __init__(
        self, means: object, common: float = 0, own: object = 0, roots: object = 0, dark: float = 0
    ) -> None:
        self.means = np.asarray(means, float)
        self.draws = iter(np.asarray(x, float) for x in (common, own, roots, max(dark, DARKEST)))

    def dirichlet(self, _spread: object, size: tuple[int, ...]) -> np.ndarray:
        return self.means + np.zeros((*size, 3))

    def uniform(self, _low: float, _high: float, size: tuple[int, ...] | int) -> np.ndarray:
        return next(self.draws) + np.zeros(size)

    def random(self, count: int) -> np.ndarray:
        return np.zeros(count)


def dyed(images: Tensor, *drawn: object, **named: object) -> Tensor:
    return restain(images, 1.0, 1.0, Dyes(*drawn, **named))  # type: ignore[arg-type]  # a stand-in


def light(images: Tensor, dark: float = DARKEST) -> Tensor:
    """Return what is taken for the light of pictures in 0 to 1 whose darkest value is `dark`."""
    return dark + (1 - dark) * images


def standard(images: Tensor) -> Tensor:
    """Return each image with mean 0 and standard deviation 1 over all its channels."""
    flat = images.flatten(1)
    return ((flat - flat.mean(1, True)) / flat.std(1, keepdim=True)).reshape(images.shape)


def test_one_channel_for_another_and_the_mean_of_all() -> None:
    images = pictures(7)
    swapped = dyed(images, np.eye(3)[[2, 0, 1]])
    torch.testing.assert_close(swapped, images[:, [2, 0, 1]], atol=1e-5, rtol=0)
    gray = dyed(images, np.full((3, 3), 1 / 3))
    torch.testing.assert_close(gray[:, :1].expand_as(gray), gray, atol=1e-6, rtol=0)
    product = light(images).prod(1, keepdim=True) ** (1 / 3)  # densities add up
    torch.testing.assert_close(
        standard(gray), standard(product.expand_as(gray)), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("dark", [DARKEST, 0.3])
def test_thrice_the_dye_and_a_tint_over_everything(dark: float) -> None:
    images = pictures(8)
    shown = light(images, dark)
    thick = dyed(images, np.eye(3), common=1.0, dark=dark)
    torch.testing.assert_close(standard(thick), standard(shown**3), atol=1e-4, rtol=1e-4)
    uneven = dyed(images, np.eye(3), own=[1.0, 0.0, -1.0], dark=dark)
    wanted = torch.stack([shown[:, 0] ** 2, shown[:, 1], shown[:, 2] ** 0.5], 1)
    torch.testing.assert_close(standard(uneven), standard(wanted), atol=1e-4, rtol=1e-4)
    tinted = dyed(images, np.eye(3), roots=[0.0, 0.5, 1.0], dark=dark)
    veil = torch.exp(-torch.tensor([0.0, 0.25, 1.0]))[:, None, None]
    torch.testing.assert_close(standard(tinted), standard(shown * veil), atol=1e-4, rtol=1e-4)


@given(seed=SEEDS, strength=st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_the_mean_and_the_spread_stay_and_darker_stays_darker(seed: int, strength: float) -> None:
    images = 40 * pictures(seed) - 9
    found = restain(images, strength, 1.0, np.random.default_rng(seed))
    for axis in range(2):
        torch.testing.assert_close(found[axis].mean(), images[axis].mean(), atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(found[axis].std(), images[axis].std(), atol=1e-3, rtol=1e-4)
    gray = images[:, :1].expand(-1, 3, -1, -1)
    after = restain(gray, strength, 1.0, np.random.default_rng(seed)).flatten(2)
    order = gray[:, :1].flatten(2).argsort(2).expand_as(after)
    assert (after.gather(2, order).diff(dim=2) > -1e-3).all()


def test_colors_go_anywhere() -> None:
    purple = torch.tensor([0.4, 0.1, 0.6])[:, None, None]
    images = pictures(9, count=1).repeat(300, 1, 1, 1)
    images[:, :, 3:] = purple
    found = restain(images, 1.0, 1.0, np.random.default_rng(0))[:, :, 4, 4]
    for first in range(3):  # each channel may be the brightest of what was purple, and the darkest
        assert 40 < int((found.argmax(1) == first).sum()) < 200
        assert 40 < int((found.argmin(1) == first).sum()) < 200
