# SPDX-License-Identifier: Apache-2.0
"""Outliers against normalizers: the standard deviation, and the contrast between two tissues.

python -m benchmarks.normalization_outliers
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.outlier_phantoms import REPORTED, Phantom, contaminated, phantom
from benchmarks.record import record
from vesalius.normalization.intensity.mad import Mad
from vesalius.normalization.intensity.mad_tanh import MadTanh
from vesalius.normalization.intensity.percentile import Percentile
from vesalius.normalization.intensity.robust import Robust
from vesalius.normalization.intensity.zscore import ZScore
from vesalius.normalization.transfer import Linear
from vesalius.types import Array

REMARK = (
    "An earlier form of the default missed the bar here; the form was changed, and its constants "
    "were chosen, on the tuning phantoms alone."
)
SEEDS = (11, 12, 13)
FRACTIONS = (0.002, 0.01, 0.03)
FACTORS = (8.0, 50.0, 1 / 8, 1 / 50)


class PlainThreeStep:
    """median/MAD, clip at 3.5, z-score: the recipe without an eye for outliers."""

    def solve(self, values: Array, mask: Array) -> Linear:
        """Return the curve of one channel."""
        inside = values[mask]
        center = np.median(inside)
        reach = 3.5 * 1.4826 * np.median(np.abs(inside - center))
        clipped = np.clip(inside, center - reach, center + reach)
        return Linear(
            float(clipped.mean()),
            float(clipped.std()),
            float(center - reach),
            float(center + reach),
        )


METHODS = {
    "mad (default)": Mad(),
    "plain three-step, clip 3.5": PlainThreeStep(),
    "mad-tanh": MadTanh(),
    "median/MAD": Robust(),
    "percentile + z": Percentile(to="zscore"),
    "z-score": ZScore(),
}


def measured(method: Any, one: Phantom, values: Array) -> tuple[float, float]:
    """Return the SD in the mask, and the gap between the medians of white and gray tissue."""
    out = method.solve(values, one.mask).apply(values)
    medians = [float(np.median(out[one.mask & (one.tissue == n)])) for n in (1, 2)]
    return float(out[one.mask].std(dtype=np.float64)), medians[1] - medians[0]


def main() -> None:
    spreads: dict[str, list[float]] = {name: [] for name in METHODS}
    drifts: dict[tuple[str, float], list[float]] = {}
    for mixture in REPORTED:
        for seed in SEEDS:
            one = phantom(mixture, seed)
            for name, method in METHODS.items():
                spread, clean = measured(method, one, one.values)
                spreads[name].append(spread)
                for fraction in FRACTIONS:
                    for factor in FACTORS:
                        values = contaminated(one, fraction, factor, seed)
                        spread, gap = measured(method, one, values)
                        spreads[name].append(spread)
                        drifts.setdefault((name, fraction), []).append(gap / clean - 1)
    rows = []
    for name in METHODS:
        row: dict[str, Any] = {
            "method": name,
            "SD least": min(spreads[name]),
            "SD most": max(spreads[name]),
        }
        for fraction in FRACTIONS:
            row[f"worst drift at {fraction:.1%}"] = max(drifts[name, fraction], key=abs)
        rows.append(row)
    ours, plain = rows[0], rows[1]
    bars = [
        {"bar": "SD in the fitting mask, least and most", "target": "0.99 to 1.01",
         "measured": f"{ours['SD least']:.4f} to {ours['SD most']:.4f}",
         "met": ours["SD least"] >= 0.99 and ours["SD most"] <= 1.01},
    ]  # fmt: skip
    worst = {
        name: max((d for (n, _), ds in drifts.items() if n == name for d in ds), key=abs)
        for name in METHODS
    }
    ratio = abs(worst["mad (default)"] / worst["plain three-step, clip 3.5"])
    bars.append(
        {"bar": "worst drift of the white/gray gap over the family / the plain three-step's",
         "target": "<= 0.5", "measured": round(ratio, 3), "met": ratio <= 0.5},
    )  # fmt: skip
    for fraction in FRACTIONS[1:]:
        key = f"worst drift at {fraction:.1%}"
        part = abs(ours[key] / plain[key])
        bars.append(
            {"bar": f"the same at {fraction:.0%} of outliers", "target": "<= 0.5",
             "measured": f"{part:.3f} ({ours[key]:+.1%} against {plain[key]:+.1%})",
             "met": part <= 0.5},
        )  # fmt: skip
    record(
        "normalization_outliers",
        {
            "title": "Normalization: outliers",
            "what": "Planted outliers on three-tissue phantoms under a field of 1 ± 0.35.",
            "data": "3 mixtures x 3 seeds of 96³ voxels; fractions 0.2, 1, 3 % of the foreground "
            "multiplied by 8, 50, 1/8, 1/50; constants were chosen on other mixtures and seeds",
            "unit": "standard deviations; change of the gap against the clean phantom normalized "
            "the same way",
            "peer": "z-score, percentile clip + z (nnU-Net, TorchIO), plain three-step",
            "baseline": "z-score",
            "remarks": [REMARK],
            "noise": f"worst of {len(REPORTED) * len(SEEDS) * len(FACTORS)} phantoms a fraction",
            "bars": bars,
            "rows": rows,
        },
        seed=SEEDS[0],
    )
    for row in rows:
        print(row)
    print(bars)


if __name__ == "__main__":
    main()
