# SPDX-License-Identifier: Apache-2.0
"""Kernel density and modes against SciPy's own density, a known truth, and a real head."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import gaussian_kde

from vesalius.errors import NormalizationRefused
from vesalius.normalization.intensity.fuzzy_c_means import tissue_means
from vesalius.normalization.intensity.tissue_modes import bandwidth, kernel_density, tissue_mode


def mixture(seed: int, *, n: int = 20_000, unit: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    parts = [rng.normal(300, 50, n // 5), rng.normal(650, 50, n // 2), rng.normal(1000, 50, n // 3)]
    return np.concatenate(parts) * unit


def test_the_density_is_scipys_with_the_bandwidth_as_a_length() -> None:
    x = mixture(0, n=5000)
    low, high = np.percentile(x, (0.5, 96))
    width = bandwidth(x, low, high)
    assert width == pytest.approx((high - low) / 80)
    grid, density = kernel_density(x, low, high, width)
    inside = (grid > low) & (grid < high)
    expected = gaussian_kde(x, bw_method=width / x.std(ddof=1))(grid[inside])
    np.testing.assert_allclose(density[inside], expected, atol=0.01 * expected.max())


@pytest.mark.parametrize("unit", [1e-3, 1.0, 2e4])
@pytest.mark.parametrize(("contrast", "truth"), [("t1", 1000), ("t2", 650), ("pd", 300)])
def test_the_mode_is_the_tissues_in_any_unit(unit: float, contrast: str, truth: float) -> None:
    assert tissue_mode(mixture(1, unit=unit), contrast) == pytest.approx(truth * unit, rel=0.02)


def test_a_bandwidth_taken_for_a_factor_would_miss_the_white_matter() -> None:
    x = mixture(2)
    smeared = gaussian_kde(x[::10], bw_method=x.max() / 80)  # SD 80 / 50 of the data: one hump
    grid = np.linspace(x.min(), x.max(), 80)
    assert grid[np.argmax(smeared(grid))] < 900
    assert tissue_mode(x, "t1") == pytest.approx(1000, rel=0.02)


def test_bright_outliers_do_not_move_the_mode() -> None:
    x = mixture(3)
    clean = tissue_mode(x, "t1")
    x[:: x.size // 200] *= 50  # half a percent
    assert tissue_mode(x, "t1") == pytest.approx(clean, rel=0.01)


def test_few_gray_levels_are_no_comb_of_modes() -> None:
    x = np.round(mixture(4) / 25) * 25  # some 40 levels
    assert tissue_mode(x, "t1") == pytest.approx(1000, abs=25)


def test_an_even_spread_with_a_small_bright_cluster_has_no_mode() -> None:
    cluster = np.random.default_rng(5).normal(1060, 8, 680)  # all above percentile 96
    x = np.append(np.linspace(0, 1050, 19_320), cluster)
    with pytest.raises(NormalizationRefused, match="no maximum up to") as caught:
        tissue_mode(x, "t1")
    assert caught.value.reason == "no-mode"


def test_one_value_but_for_the_tails_has_no_mode() -> None:
    x = np.full(1000, 5.0)
    x[0] = 6
    with pytest.raises(NormalizationRefused, match="nearly all values in the mask are 5"):
        tissue_mode(x, "t1")


def test_on_a_corrected_head_the_mode_agrees_with_the_clusters(data) -> None:
    from vesalius import io

    folder = data("minc/n3/testing")
    values = io.read(folder / "brain_nu_ref.mnc.gz").data[0]
    mask = io.read(folder / "brain_mask.mnc.gz").data[0] > 0.5
    found = values[mask].astype(np.float64)
    assert tissue_mode(found, "t1") == pytest.approx(tissue_means(found, "t1", 50)[2], rel=0.05)
