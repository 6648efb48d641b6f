# SPDX-License-Identifier: Apache-2.0
"""The MINC preset: what the MNI's tools do to an MR image before it is compared with others.

1. bias field: `n3` or `n4`;
2. low-gradient mask: the flat half of the object;
3. slice chain along x, y or z (the grid's i, j, k), where asked for;
4. inormalize: one factor to the constant 1000 (median of ratios), or to a registered model;
5. polynomial histogram fit to a template, where one is given, with KS and KL distances.

The order is that of normalize_mri and nu_correct_norm (Zijdenbos): inormalize levels the slices
before it solves the overall factor, so that the constant is reached. Only a program that reads and
writes `.mnc` is missing here: `io` does that.
"""

from __future__ import annotations

import numpy as np

from vesalius.errors import UsageError
from vesalius.normalization.card import Card, Kind, Law
from vesalius.normalization.intensity.inormalize import MIN_VOXELS, Inormalize, solve_to_model
from vesalius.normalization.intensity.polynomial import PolynomialFit, report
from vesalius.normalization.intensity.ratios import RATIOS
from vesalius.normalization.spatial import n3, n4, slice_chain
from vesalius.normalization.spatial.gradient_mask import FWHM_MM, low_gradient
from vesalius.types import Array, Json, Spacing3

CARD = Card(
    name="minc",
    title="MINC preset: bias field, low-gradient mask, inormalize, slice chain, histogram fit",
    formula="y = f · x / field; f = 1000 / median of the object's flat half",
    source="Sled et al. 1998; Zijdenbos, inormalize, MNI 1995-2007",
    kind=Kind.SPATIAL,
    laws=frozenset({Law.SCALE_INVARIANT}),
)
BIAS = {"n3": n3, "n4": n4}
_AXES = {"x": "i", "y": "j", "z": "k"}


def correct(
    values: Array,
    mask: Array,
    *,
    spacing: Spacing3,
    bias: str = "n3",
    chain: str = "",
    ratio: str = RATIOS[0],
    target: float = 1000.0,
    model: Array | None = None,
    template: Array | None = None,
    template_mask: Array | None = None,
    min_voxels: int = MIN_VOXELS,
) -> tuple[Array, Json]:
    """Return the normalized channel, float32, and the record of every step.

    Args:
        values: one channel, `(i, j, k)`, any real dtype.
        mask: Boolean, same shape: the object, without air.
        spacing: millimeters along i, j, k.
        bias: `n3`, `n4`, or `none` where the field was taken out before.
        chain: letters of `xyz`, in the order in which slices are leveled; empty: none.
        ratio: one of `ratios.RATIOS`, or `range`.
        target: the constant that the object's flat half is brought to.
        model: an image on the same grid that takes the constant's place.
        template: an image, on any grid, whose histogram is the goal of the polynomial fit.
        template_mask: its object; by default its positive values.
        min_voxels: that steps 3 and 4 need to compare.

    Raises:
        UsageError: an unknown `bias`, `chain` or `ratio`, or shapes that do not fit.
        NormalizationRefused: by the first step that cannot be done; see each.
    """
    if bias not in (*BIAS, "none"):
        raise UsageError(f"bias must be n3, n4 or none, got '{bias}'")
    if set(chain) - set(_AXES):
        raise UsageError(f"chain must be letters of 'xyz', got '{chain}'")
    record: Json = {"method": "minc"}
    out = np.asarray(values, np.float32)
    if bias != "none":
        out, record["bias"] = BIAS[bias].correct(values, mask, spacing=spacing)
    flat = low_gradient(out, mask, spacing=spacing)
    record["low_gradient"] = {
        "fwhm_mm": FWHM_MM, "mask_voxels": int(mask.sum()), "voxels": int(flat.sum()),
    }  # fmt: skip
    if chain:
        axes = "".join(_AXES[letter] for letter in chain)
        out, record["slice_chain"] = slice_chain.correct(
            out, flat, spacing=spacing, axes=axes, min_voxels=min_voxels
        )
    if model is None:
        method = Inormalize(ratio=ratio, target=target, min_voxels=min_voxels)
        line = method.solve(out, flat)
        record["inormalize"] = method.to_json() | {"to": "constant"}
    else:
        line = solve_to_model(out, model, flat, ratio=ratio, min_voxels=min_voxels)
        record["inormalize"] = {"ratio": ratio, "min_voxels": min_voxels, "to": "model"}
    record["inormalize"]["transfer"] = line.to_json()
    out = line.apply(out)
    if template is not None:
        goal = template > 0 if template_mask is None else template_mask
        curve = PolynomialFit.to_template(template, goal).solve(out, mask)
        distances = report(out, mask, curve, template, goal)
        record["polynomial"] = {"transfer": curve.to_json(), **distances}
        out = curve.apply(out)
    return out, record
