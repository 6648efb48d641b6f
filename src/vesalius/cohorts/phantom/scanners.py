# SPDX-License-Identifier: Apache-2.0
"""The simulated scanners of three simulated hospitals: grids, scaling, noise and storage.

Manufacturers, models and hospitals are invented; no real device is imitated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vesalius.types import Affine, Shape3

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
RLE = "1.2.840.10008.1.2.5"
JPEG_LS = "1.2.840.10008.1.2.4.80"


@dataclass(frozen=True, slots=True)
class Scanner:
    """One device and its fixed protocol.

    Attributes:
        shape: voxels along (i, j, k): columns, rows, slices.
        spacing: millimeters along (i, j, k).
        plane: "axial", "coronal" or "oblique" (axial, tilted about the left-right axis).
        slope, intercept: stored value -> modality value. `slope` 0 leaves both out of the header
            (stored values are the modality's).
        bits: bits stored; `signed`: two's complement.
        noise: CT: standard deviation in HU; MR: relative to the signal of water at TE 0;
            X-ray: photons per unshielded pixel.
        bias: MR: largest deviation of the receive field's logarithm.
        gain: MR: stored signal of water at TE 0 (before `slope`); X-ray: values per unit of
            line integral.
    """

    site: str
    modality: str
    manufacturer: str
    model: str
    station: str
    software: str
    shape: Shape3
    spacing: tuple[float, float, float]
    syntax: str
    plane: str = "axial"
    slope: float = 1.0
    intercept: float = 0.0
    bits: int = 12
    signed: bool = False
    noise: float = 10.0
    bias: float = 0.0
    gain: float = 1000.0
    tesla: float = 0.0
    inverted: bool = False  # MONOCHROME1
    sop_class: str = ""
    instances_from_top: bool = False  # instance numbers run from head to feet

    def affine(self, center: tuple[float, float, float]) -> Affine:
        """Return the grid around a point (RAS millimeters); i runs left, j posterior or down."""
        columns = {
            "axial": ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
            "coronal": ((-1, 0, 0), (0, 0, -1), (0, -1, 0)),
        }["coronal" if self.plane == "coronal" else "axial"]
        directions = np.array(columns, dtype=np.float64).T
        if self.plane == "oblique":
            a = np.radians(12.0)
            tilt = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
            directions = tilt @ directions
        affine = np.eye(4)
        affine[:3, :3] = directions * self.spacing
        affine[:3, 3] = center - affine[:3, :3] @ ((np.asarray(self.shape) - 1) / 2)
        return affine


@dataclass(frozen=True, slots=True)
class Protocol:
    """One spin-echo sequence; times in milliseconds."""

    name: str  # "T1" | "T2"
    tr: float
    te: float
    echo_train: int


T1W = Protocol("T1", 500.0, 12.0, 1)
T2W = Protocol("T2", 3500.0, 85.0, 16)

_CT = "1.2.840.10008.5.1.4.1.1.2"
_MR = "1.2.840.10008.5.1.4.1.1.4"
_CR = "1.2.840.10008.5.1.4.1.1.1"
_DX = "1.2.840.10008.5.1.4.1.1.1.1"

SITES = ("Simulated Hospital A", "Simulated Hospital B", "Simulated Hospital C")

SCANNERS: dict[tuple[str, str], Scanner] = {
    (scanner.site, "DX" if scanner.modality == "CR" else scanner.modality): scanner
    for scanner in (
        Scanner(
            "A", "CT", "Simulated Fabrica", "Fabrica CT 16", "FAB-CT1", "1.0",
            (96, 96, 24), (4.0, 4.0, 8.0), EXPLICIT,
            intercept=-1024.0, noise=9.0, sop_class=_CT,
        ),
        Scanner(
            "B", "CT", "Simulated Oporinus", "Oporinus CT 64", "OPO-CT1", "4.2",
            (96, 96, 26), (3.75, 3.75, 7.5), JPEG_LS,
            bits=16, signed=True, noise=12.0, sop_class=_CT, instances_from_top=True,
        ),
        Scanner(
            "C", "CT", "Simulated Valverde", "Valverde CT One", "VAL-CT1", "2.7",
            (88, 88, 22), (4.25, 4.25, 9.0), RLE,
            slope=0.5, intercept=-1200.0, bits=14, noise=14.0, sop_class=_CT,
        ),
        Scanner(
            "A", "MR", "Simulated Fabrica", "Fabrica MR 15", "FAB-MR1", "3.1",
            (80, 80, 20), (4.6, 4.6, 9.0), EXPLICIT,
            slope=0.0, noise=0.008, bias=0.16, gain=1100.0, tesla=1.5, sop_class=_MR,
        ),
        Scanner(
            "B", "MR", "Simulated Oporinus", "Oporinus MR 30", "OPO-MR1", "5.0",
            (80, 72, 20), (4.75, 4.75, 9.5), JPEG_LS, plane="coronal",
            slope=0.0, noise=0.006, bias=0.26, gain=2600.0, tesla=3.0, sop_class=_MR,
        ),
        Scanner(
            "C", "MR", "Simulated Valverde", "Valverde MR Open", "VAL-MR1", "1.9",
            (76, 76, 20), (4.8, 4.8, 9.0), RLE, plane="oblique",
            slope=1.75, noise=0.011, bias=0.20, gain=5200.0, tesla=1.5, sop_class=_MR,
        ),
        Scanner(
            "A", "DX", "Simulated Fabrica", "Fabrica DX", "FAB-DX1", "1.4",
            (128, 128, 1), (3.0, 3.0, 1.0), EXPLICIT,
            noise=60000.0, gain=520.0, sop_class=_DX,
        ),
        Scanner(
            "B", "CR", "Simulated Oporinus", "Oporinus CR", "OPO-CR1", "2.2",
            (128, 128, 1), (3.0, 3.0, 1.0), IMPLICIT,
            noise=25000.0, gain=460.0, inverted=True, sop_class=_CR,
        ),
        Scanner(
            "C", "DX", "Simulated Valverde", "Valverde DX", "VAL-DX1", "2.0",
            (120, 136, 1), (3.2, 3.2, 1.0), DEFLATED,
            noise=40000.0, gain=600.0, sop_class=_DX,
        ),
    )
}  # fmt: skip
