# SPDX-License-Identifier: Apache-2.0
"""MADNorm in front of a small segmenter: clean and shifted test cases, with and without adapting.

`python -m benchmarks.madnorm` trains every arm on hippocampus slices and reports the held-out
cases. `--subset val` shows the validation cases under milder shifts; nothing is written then.
"""

from __future__ import annotations

import argparse
import copy
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor

from benchmarks.record import record
from vesalius.metrics.bootstrap import patient_draws
from vesalius.networks.unet import UNet
from vesalius.normalization.learned.adaptation import Adaptation, Source, adapt, measure
from vesalius.normalization.learned.network import MADNorm, Normalized
from vesalius.training.loss import dice_cross_entropy
from vesalius.types import Array, Subset

STEPS, BATCH, LEARNING_RATE = 300, 8, 3e-3
WIDTHS = (8, 16, 32)
GRID = (60, 48)  # of a sagittal slice, padded; padding is outside the mask of the statistics
OFFSETS = (-6, -4, -2, 0, 2, 4, 6)  # sagittal slices around the middle one
ADAPTED = 8  # cases of the shifted kind that adaptation sees, without labels; none is scored
CENTRAL = slice(2, 5)  # of the seven slices, those that adaptation looks at

# per subset: the shifts it is measured under
SHIFTS: dict[str, dict[str, tuple[float, float]]] = {  # name -> gamma, bias amplitude
    "val": {"clean": (1.0, 0.0), "gamma 0.7": (0.7, 0.0), "gamma 1.4": (1.4, 0.0),
            "bias 25 %": (1.0, 0.25)},
    "test": {"clean": (1.0, 0.0), "gamma 0.6": (0.6, 0.0), "gamma 1.6": (1.6, 0.0),
             "bias 35 %": (1.0, 0.35)},
}  # fmt: skip
ARMS = {
    "mad-tanh, fixed": {"cnn": False, "learned": False, "augmented": False},
    "MADNorm": {"cnn": False, "learned": True, "augmented": False},
    "MADNorm + CNN": {"cnn": True, "learned": True, "augmented": False},
    "mad-tanh, fixed; gamma and bias in training": {
        "cnn": False, "learned": False, "augmented": True},
}  # fmt: skip
BASE, ADAPTING = "mad-tanh, fixed", "MADNorm + CNN"


@dataclass(frozen=True)
class Slices:
    """Images and masks `(cases, slices, 1, j, k)`, labels `(cases, slices, j, k)`."""

    images: Tensor
    masks: Tensor
    truths: Tensor

    def of(self, cases: slice, some: slice = slice(None)) -> Slices:
        """Return some slices of some cases."""
        parts = (self.images, self.masks, self.truths)
        return Slices(*(part[cases, some] for part in parts))

    def flat(self) -> Slices:
        """Return the slices of all cases in one row."""
        return Slices(*(p.flatten(0, 1) for p in (self.images, self.masks, self.truths)))


def shifted(volume: Array, gamma: float, bias: float, generator: np.random.Generator) -> Array:
    """Return the volume through a gamma curve and a smooth field of 1 - bias to 1 + bias."""
    low, high = float(volume.min()), float(volume.max())
    share = (volume - low) / (high - low)
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in volume.shape), indexing="ij")
    first, second = generator.normal(size=(2, 3))
    field = sum(a * u + b * u * u for a, b, u in zip(first, second, axes, strict=True))
    field = 2 * (field - field.min()) / np.ptp(field) - 1
    out: Array = (share**gamma * (1 + bias * field) * (high - low) + low).astype(np.float32)
    return out


def slices(volume: Array, fill: float) -> Array:
    """Return the chosen sagittal slices of `(i, j, k)` on the fixed grid, `(slices, *GRID)`."""
    out = np.full((len(OFFSETS), *GRID), fill, volume.dtype)
    middle = volume.shape[0] // 2
    for row, offset in enumerate(OFFSETS):
        part = volume[middle + offset, : GRID[0], : GRID[1]]
        out[row, : part.shape[0], : part.shape[1]] = part
    return out


def load(data: Path) -> dict[Subset, list[tuple[Array, Array]]]:
    """Return volumes and labels of each subset; look-alikes and mirrored pairs stay together."""
    from vesalius.cohorts import Cohort
    from vesalius.cohorts.scan import scan
    from vesalius.cohorts.splits import make_split

    with tempfile.TemporaryDirectory() as folder:
        scan(data, Path(folder) / "cohort")
        cohort = Cohort.open(Path(folder) / "cohort")
        split = make_split(cohort, fractions=(0.6, 0.15, 0.25), seed=0)
        cases: dict[Subset, list[tuple[Array, Array]]] = {"train": [], "val": [], "test": []}
        for row in cohort.to_arrow().to_pylist():
            volume = cohort.read(row).data[0].astype(np.float32)
            labels = cohort.read_mask(row).data[0].astype(np.int64)
            cases[split.rows[row["key"]]].append((volume, labels))
    return cases


def tensors(
    cases: list[tuple[Array, Array]], gamma: float = 1.0, bias: float = 0.0, seed: int = 0
) -> Slices:
    """Return the slices of shifted cases."""
    generator = np.random.default_rng(seed)
    images, masks, truths = [], [], []
    for volume, labels in cases:
        moved = shifted(volume, gamma, bias, generator)
        images.append(slices(moved, float(moved.min())))
        masks.append(slices(np.ones(volume.shape, bool), False))
        truths.append(slices(labels, 0))
    shown, inside, truth = (torch.from_numpy(np.stack(part)) for part in (images, masks, truths))
    return Slices(shown[:, :, None], inside[:, :, None], truth)


def train(
    cases: list[tuple[Array, Array]], *, cnn: bool, learned: bool, augmented: bool, seed: int
) -> Normalized:
    """Return a segmenter trained for a fixed number of steps, its normalization included."""
    torch.manual_seed(seed)
    unet = UNet(spatial_dims=2, in_channels=1, out_channels=3, widths=WIDTHS)
    norm = MADNorm(spatial_dims=2, modalities=["MR"], cnn=cnn)
    network = Normalized(norm.requires_grad_(learned), unet)
    plain = tensors(cases).flat()
    images, truths = plain.images, plain.truths
    if augmented:  # eight ready-made copies of the training set, each case with its own shift
        images = augmented_copies(cases, seed)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(truths), (BATCH,), generator=generator)
        copies = torch.randint(len(images) // len(truths), (BATCH,), generator=generator)
        batch = images[rows + copies * len(truths)]
        logits = network(batch, mr(norm, len(batch)), plain.masks[rows])
        loss = dice_cross_entropy(logits, truths[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def augmented_copies(cases: list[tuple[Array, Array]], seed: int, copies: int = 8) -> Tensor:
    """Return the slices of `copies` shifted versions of each case, `(copies * slices, 1, j, k)`."""
    generator = np.random.default_rng(seed)
    out = []
    for _ in range(copies):
        for volume, _labels in cases:
            gamma, bias = np.exp(generator.uniform(-0.5, 0.5)), generator.uniform(0, 0.35)
            moved = shifted(volume, gamma, bias, generator)
            out.append(slices(moved, float(moved.min())))
    return torch.from_numpy(np.concatenate(out))[:, None]


def mr(norm: MADNorm, n: int) -> Tensor:
    return norm.index(["MR"] * n)


def dice(network: Normalized, cases: Slices) -> Array:
    """Return each case's Dice, the mean of both structures, pooled over the case's slices."""
    scores = []
    with torch.no_grad():
        for image, mask, truth in zip(cases.images, cases.masks, cases.truths, strict=True):
            found = network(image, mr(network.norm, len(image)), mask).argmax(1)
            pair = []
            for label in (1, 2):
                a, b = found == label, truth == label
                pair.append(float(2 * (a & b).sum() / (a.sum() + b.sum())))
            scores.append(np.mean(pair))
    return np.array(scores)


def adapted(network: Normalized, source: Source, cases: Slices) -> tuple[Normalized, Adaptation]:
    """Return a copy adapted to the cases, their labels unread, and the record."""
    other = copy.deepcopy(network)
    seen = cases.of(slice(None), CENTRAL).flat()
    modality = mr(other.norm, len(seen.images))
    count = len(cases.images)
    return other, adapt(other, seen.images, source, cases=count, modality=modality, mask=seen.masks)


def interval(values: Array) -> tuple[float, float, float]:
    """Return the mean over cases and its 95 % case bootstrap."""
    draws = patient_draws(lambda w: w @ values / w.sum(1), list(range(len(values))))
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def run(
    data: Path, subset: Subset, seeds: int, say: Callable[[str], None]
) -> tuple[dict[tuple[str, str], Array], list[dict[str, Any]], dict[str, int]]:
    """Return Dice `(seeds, cases)` of each arm and shift, adaptation records, and sizes."""
    cases = load(data)
    sets = {
        name: tensors(cases[subset], gamma, bias, seed=1)
        for name, (gamma, bias) in SHIFTS[subset].items()
    }
    scores: dict[tuple[str, str], list[Array]] = {}
    records: list[dict[str, Any]] = []
    clean, scored = tensors(cases["train"]), slice(ADAPTED, None)
    for seed in range(seeds):
        for arm, settings in ARMS.items():
            start = time.process_time()
            network = train(cases["train"], seed=seed, **settings)
            for name, shown in sets.items():
                found = dice(network, shown.of(scored))
                scores.setdefault((arm, name), []).append(found)
            if arm == ADAPTING:
                central = clean.of(slice(None), CENTRAL)
                pairs = zip(central.images, central.masks, strict=True)
                source = measure(network, pairs, modality=["MR"] * len(central.images))
                for name, shown in sets.items():
                    other, log = adapted(network, source, shown.of(slice(ADAPTED)))
                    found = dice(other, shown.of(scored))
                    scores.setdefault((f"{arm}, adapted", name), []).append(found)
                    records.append({"seed": seed, "test": name, **log.to_json()})
            say(f"seed {seed}, {arm}: {time.process_time() - start:.0f} s")
    sizes = {name: len(part) for name, part in cases.items()}
    return {key: np.stack(value) for key, value in scores.items()}, records, sizes


def table(scores: dict[tuple[str, str], Array]) -> list[dict[str, Any]]:
    """Return one row an arm and shift: Dice, its interval, spread over seeds, gain over fixed."""
    rows = []
    for (arm, name), values in scores.items():
        mean, low, high = interval(values.mean(0))
        gain, worst, best = interval((values - scores[BASE, name]).mean(0))
        rows.append({
            "arm": arm, "test": name, "dice": round(mean, 4),
            "95 % of cases": f"{low:.3f} to {high:.3f}",
            "sd of seeds": round(float(values.mean(1).std(ddof=1)) if len(values) > 1 else 0, 4),
            "minus fixed": round(gain, 4), "95 % of the difference": f"{worst:+.3f} to {best:+.3f}",
        })  # fmt: skip
    return rows


def bars(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what is asked of MADNorm: no loss on clean cases, a gain by adapting on shifted."""
    held = {(row["arm"], row["test"]): row for row in rows}
    out = []
    for arm in ("MADNorm", ADAPTING):
        row = held[arm, "clean"]
        out.append({
            "bar": f"{arm} minus the closed form, clean", "target": ">= -0.01",
            "measured": row["minus fixed"], "spread": row["95 % of the difference"],
            "met": row["minus fixed"] >= -0.01,
        })  # fmt: skip
    for name in SHIFTS["test"]:
        before, after = held[ADAPTING, name]["dice"], held[f"{ADAPTING}, adapted", name]["dice"]
        gain = round(after - before, 4)
        out.append({
            "bar": f"adapted minus not adapted, {name}", "target": ">= 0", "measured": gain,
            "met": gain >= 0,
        })  # fmt: skip
    return out


def remarks(
    scores: dict[tuple[str, str], Array], records: list[dict[str, Any]], seconds: float
) -> list[str]:
    """Return sentences for the page, the paired intervals of adaptation among them."""
    out = [f"All trainings and adaptations took {seconds:.0f} s of one core."]
    for name in SHIFTS["test"]:
        gain = scores[f"{ADAPTING}, adapted", name] - scores[ADAPTING, name]
        mean, low, high = interval(gain.mean(0))
        reasons = ", ".join(one["reason"] for one in records if one["test"] == name)
        out.append(
            f"Adapting on {name}: {mean:+.4f} Dice ({low:+.4f} to {high:+.4f}); by seed: {reasons}."
        )
    return out


def main() -> None:
    """Train, measure, and write `results/madnorm.json` (for the test cases only)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subset", choices=["val", "test"], default="test")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = Path(os.environ["VESALIUS_DATA"]) / "hippocampus"
    start = time.process_time()
    scores, records, sizes = run(data, arguments.subset, arguments.seeds, print)
    seconds = time.process_time() - start
    rows = table(scores)
    for row in rows:
        print(" | ".join(map(str, row.values())))
    print(sizes, f"{seconds:.0f} s of one core")
    if arguments.subset != "test":
        return
    path = record(
        "madnorm",
        {
            "title": "MADNorm: learned normalization",
            "what": "Dice of one small 2D U-Net (both hippocampus structures, 7 sagittal slices a "
            "case) on unseen cases, clean and shifted, under four ways of normalizing.",
            "data": f"hippocampus, {sizes}; the first {ADAPTED} test cases are for adaptation "
            f"without labels, the other {sizes['test'] - ADAPTED} are scored",
            "split": "by groups of look-alikes and mirrored pairs, 60/15/25; settings were chosen "
            "on validation cases",
            "unit": "Dice",
            "baseline": f"{BASE}: the closed form, nothing learned",
            "noise": f"{arguments.seeds} seeds (initialization, order of slices); intervals are a "
            "bootstrap of cases on the seeds' mean",
            "remarks": remarks(scores, records, seconds),
            "bars": bars(rows),
            "rows": rows,
            "adaptations": records,
        },
        data=data,
    )  # fmt: skip
    print(path)


if __name__ == "__main__":
    main()
