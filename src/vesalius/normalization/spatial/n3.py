# SPDX-License-Identifier: Apache-2.0
"""N3: the bias field under which the histogram is sharpest, as a stiff spline in the log domain.

Sled, Zijdenbos & Evans: A nonparametric method for automatic correction of intensity
nonuniformity in MRI data, IEEE TMI 1998. From a flat log field b, repeat: u = E[u | log v - b] by
histogram sharpening; b = the smooth part of log v - u; until the standard deviation of the change
of b in the mask falls below `stop`. Defaults are those that N3 documents as its version 1.0
(`-fwhm 0.15 -stop 0.001 -iterations 50 -shrink 4 -distance 200 -lambda 1e-7`, noise 0.01, 200
bins). Departures: the field has mean 1 in the mask, outside it is held within its range inside
(N3 extends it by a Laplacian), and all arithmetic is float64.
Declared law: `a * x` with `a > 0` gives `a` times the result for `x`.
"""

from __future__ import annotations

import numpy as np

from vesalius.errors import UsageError
from vesalius.normalization.card import Card, Kind
from vesalius.normalization.spatial.bias_field import coarse_steps, divide, enough, ground
from vesalius.normalization.spatial.sharpening import sharpen
from vesalius.normalization.spatial.spline_field import SplineField
from vesalius.types import Array, Json, Spacing3

CARD = Card(
    name="n3",
    title="bias field, sharpest histogram (N3)",
    formula="y = x / f, log f = smooth part of log x - E[u | log x - log f]",
    source="Sled, Zijdenbos & Evans, IEEE TMI 1998",
    kind=Kind.SPATIAL,
)


def correct(
    values: Array,
    mask: Array,
    *,
    spacing: Spacing3,
    shrink: int = 4,
    distance: float = 200.0,
    stiffness: float = 1e-7,
    fwhm: float = 0.15,
    noise: float = 0.01,
    bins: int = 200,
    iterations: int = 50,
    stop: float = 0.001,
) -> tuple[Array, Json]:
    """Return `values` without their bias field, float32, and the record of it.

    Args:
        values: one channel, `(i, j, k)`, any real dtype; a single slice has `k = 1`.
        mask: the fitting mask, Boolean, same shape: the object, without air.
        spacing: millimeters along i, j, k.
        shrink: voxels to one of the coarse grid on which the field is estimated.
        distance: between the spline's knots, millimeters.
        stiffness: weight of its bending energy (N3's lambda).
        fwhm: of the Gaussian that is taken out of the histogram, in natural logarithms.
        noise: of the Wiener filter, against the histogram's power.
        bins: of the histogram, at least 16.
        iterations: at most.
        stop: standard deviation of the change of the log field at which they end.

    Raises:
        UsageError: a parameter is out of its range.
        NormalizationRefused: see `bias_field.ground`.
    """
    if bins < 16 or iterations < 1 or not (fwhm > 0 and noise > 0 and stop >= 0):
        raise UsageError(
            "n3 needs bins >= 16, iterations >= 1, fwhm > 0, noise > 0 and stop >= 0, got "
            f"bins={bins}, iterations={iterations}, fwhm={fwhm}, noise={noise}, stop={stop}"
        )
    found = ground(values, mask)
    steps = coarse_steps(found.values.shape, spacing, shrink)
    coarse = tuple(slice(None, None, step) for step in steps)
    usable = found.usable[coarse]
    enough(int(usable.sum()))
    logs = np.log(found.values[coarse][usable])
    field = SplineField(
        found.values.shape, spacing, steps=steps, mask=usable, distance=distance,
        stiffness=stiffness,
    )  # fmt: skip
    bias, change, done = np.zeros(logs.shape), np.inf, 0
    residual = np.zeros(usable.shape)
    while done < iterations and change >= stop and np.ptp(logs - bias) > 0:
        residual[usable] = logs - sharpen(logs - bias, bins=bins, fwhm=fwhm, noise=noise)
        coefficients = field.fit(residual)
        before, bias = bias, field.coarse(coefficients)[usable]
        change, done = float(np.std(bias - before)), done + 1
    out, record = divide(values, found, field.full(coefficients))
    made = {
        "method": "n3", "steps": [*steps], "distance_mm": distance, "stiffness": stiffness,
        "fwhm": fwhm, "noise": noise, "bins": bins, "iterations": done, "change": change,
        "converged": change < stop,
    }  # fmt: skip
    return out, made | record
