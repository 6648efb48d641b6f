# SPDX-License-Identifier: Apache-2.0
"""From tissues to signals: published CT numbers and relaxation times, and the imaging equations.

Sources of the numbers:

* CT numbers: W. Schneider, T. Bortfeld, W. Schlegel, Phys. Med. Biol. 45:459 (2000), computed
  from the tissue compositions of ICRU Report 44 (1989); liver 58 +- 9 HU without contrast medium:
  Int. J. Legal Med. 133:1861 (2019). Tumors are slightly less dense than liver; simple cysts
  have the density of water (0 to 10 HU).
* T1 and T2 of organs at 1.5 T and 3 T: C. de Bazelaire et al., Radiology 230:652 (2004); of blood:
  G. Stanisz et al., Magn. Reson. Med. 54:507 (2005).
* T2 of lesions at 1.5 T: malignant liver tumors 76 +- 11 ms, cysts 341 +- 38 ms: S. McFarland et
  al., Radiology 193:43 (1994). Their T1 is longer than that of liver in nearly all cases; the
  value for tumors lies between liver and spleen, that for cysts near free water (assumptions).
* Attenuation of water at 60 keV: 0.2059 cm2/g, NIST XCOM / Hubbell and Seltzer (1995).
* Noise of magnitude MR images: H. Gudbjartsson, S. Patz, Magn. Reson. Med. 34:910 (1995).

Proton densities are relative to water. Values marked `assumed` in the table have no source; flowing
blood is given no proton density because spin echoes lose it (flow void).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from scipy import ndimage

from vesalius.types import Array

WATER_ATTENUATION_PER_MM = 0.02059  # at 60 keV


class Tissue(IntEnum):
    """What fills a point of the simulated torso."""

    AIR = 0
    FAT = 1
    MUSCLE = 2
    LUNG = 3
    BOWEL = 4
    GAS = 5
    FLUID = 6
    LIVER = 7
    LIVER_VESSEL = 8
    SPLEEN = 9
    KIDNEY_CORTEX = 10
    KIDNEY_MEDULLA = 11
    VERTEBRA = 12
    VERTEBRA_SHELL = 13
    DISC = 14
    CANAL = 15
    RIB = 16
    BLOOD = 17
    HEART = 18
    CYST = 19
    TUMOR = 20
    COUCH = 21


@dataclass(frozen=True, slots=True)
class Properties:
    """One tissue's physical values.

    Attributes:
        hu, hu_sd: CT number and its standard deviation between people, Hounsfield units.
        t1, t2: relaxation times in milliseconds at (1.5 T, 3 T).
        density: protons relative to water.
    """

    hu: float
    hu_sd: float
    t1: tuple[float, float]
    t2: tuple[float, float]
    density: float


PROPERTIES: dict[Tissue, Properties] = {
    Tissue.AIR: Properties(-1000, 0, (1000, 1000), (10, 10), 0.0),
    Tissue.FAT: Properties(-98, 5, (343, 382), (58, 68), 0.90),
    Tissue.MUSCLE: Properties(50, 3, (856, 898), (27, 29), 0.80),
    Tissue.LUNG: Properties(-780, 30, (1200, 1300), (30, 25), 0.15),  # MR assumed
    Tissue.BOWEL: Properties(38, 5, (900, 1050), (60, 55), 0.80),  # MR assumed
    Tissue.GAS: Properties(-980, 0, (1000, 1000), (10, 10), 0.0),
    Tissue.FLUID: Properties(12, 4, (2500, 2800), (250, 220), 0.95),  # MR assumed
    Tissue.LIVER: Properties(58, 5, (586, 809), (46, 34), 0.75),
    Tissue.LIVER_VESSEL: Properties(42, 2, (1441, 1932), (290, 275), 0.05),
    Tissue.SPLEEN: Properties(48, 4, (1057, 1328), (79, 61), 0.80),
    Tissue.KIDNEY_CORTEX: Properties(33, 3, (966, 1142), (87, 76), 0.80),
    Tissue.KIDNEY_MEDULLA: Properties(29, 3, (1412, 1545), (85, 81), 0.85),
    Tissue.VERTEBRA: Properties(190, 40, (549, 586), (49, 49), 0.60),
    Tissue.VERTEBRA_SHELL: Properties(620, 60, (1000, 1000), (1, 1), 0.15),
    Tissue.DISC: Properties(80, 8, (1100, 1250), (75, 65), 0.75),  # MR assumed
    Tissue.CANAL: Properties(25, 3, (2200, 2500), (180, 160), 0.90),  # MR assumed
    Tissue.RIB: Properties(420, 50, (549, 586), (40, 40), 0.40),
    Tissue.BLOOD: Properties(42, 2, (1441, 1932), (290, 275), 0.05),
    Tissue.HEART: Properties(45, 3, (1030, 1471), (40, 47), 0.70),
    Tissue.CYST: Properties(5, 3, (3000, 3300), (341, 320), 1.00),
    Tissue.TUMOR: Properties(36, 3, (980, 1200), (76, 62), 0.85),
    Tissue.COUCH: Properties(-320, 0, (1000, 1000), (10, 10), 0.0),
}


def table(name: str, *, tesla: float = 1.5) -> Array:
    """Return one property for all tissues, indexed by `Tissue`: `hu`, `hu_sd`, `t1`, ... (float64).

    Relaxation times are those of the nearer field strength, 1.5 T or 3 T.
    """
    field = int(tesla > 2.2)
    values = [getattr(PROPERTIES[tissue], name) for tissue in Tissue]
    return np.array([v[field] if isinstance(v, tuple) else v for v in values], dtype=np.float64)


def spin_echo(t1: Array, t2: Array, density: Array, tr: float, te: float) -> Array:
    """Return the spin-echo signal `density (1 - exp(-TR/T1)) exp(-TE/T2)`; times in ms."""
    signal: Array = density * (1 - np.exp(-tr / t1)) * np.exp(-te / t2)
    return signal


def rician(signal: Array, sigma: float, rng: np.random.Generator) -> Array:
    """Return the magnitude of `signal` plus complex Gaussian noise of deviation `sigma`."""
    real = signal + sigma * rng.standard_normal(signal.shape, dtype=np.float32)
    imaginary = sigma * rng.standard_normal(signal.shape, dtype=np.float32)
    magnitude: Array = np.hypot(real, imaginary)
    return magnitude


def bias_field(shape: tuple[int, ...], strength: float, rng: np.random.Generator) -> Array:
    """Return a smooth multiplicative field, geometric mean 1, within `1 +- strength` or so.

    The logarithm is a random polynomial of second degree over the grid, as coil profiles are
    nearly so.
    """
    axes = [
        np.linspace(-1, 1, n, dtype=np.float32).reshape([-1 if m == a else 1 for m in range(3)])
        for a, n in enumerate(shape)
    ]
    linear, square = rng.normal(size=3), rng.normal(size=3)
    field = np.zeros(shape, np.float32)
    for axis in range(3):
        field += np.float32(linear[axis]) * axes[axis]
        field += np.float32(square[axis]) * (axes[axis] ** 2 - np.float32(1 / 3))
    field -= field.mean()
    scaled: Array = np.exp(field * np.float32(strength / max(float(np.abs(field).max()), 1e-6)))
    return scaled


def correlated_noise(
    shape: tuple[int, ...], deviation: float, rng: np.random.Generator, *, sigma: float = 0.55
) -> Array:
    """Return Gaussian noise of the given deviation, smoothed in-plane as by a CT kernel."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    ndimage.gaussian_filter(noise, (sigma, sigma, 0), output=noise, mode="wrap", truncate=3)
    return noise * np.float32(deviation / noise.std())


def attenuation(hu: Array) -> Array:
    """Return the linear attenuation per millimeter at 60 keV that belongs to CT numbers."""
    mu: Array = np.maximum(0, 1 + hu / 1000) * WATER_ATTENUATION_PER_MM
    return mu


def radiograph(
    line_integral: Array, photons: float, scatter: float, rng: np.random.Generator
) -> Array:
    """Return the measured line integral: Beer-Lambert with Poisson noise and uniform scatter.

    `photons` reach an unshielded pixel, `scatter` is the scattered fraction of the mean primary
    signal. Dimensionless, larger where the body attenuates more.
    """
    primary = photons * np.exp(-line_integral)
    counts = rng.poisson(primary + scatter * primary.mean())
    measured: Array = -np.log(np.maximum(counts, 1) / photons)
    return measured.astype(np.float32)
