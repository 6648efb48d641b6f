# SPDX-License-Identifier: Apache-2.0
"""Registration: known rigid motions recovered, failures flagged, against one start of SimpleITK.

The moving image's affine is multiplied by a random rigid T (rotation up to 15 degrees about a
random axis through the foreground's center, shift up to 30 mm in a random direction, both uniform
in size). Error: mean distance between where the found and the true map put the fixed image's
foreground, in mm and in voxels of the coarser image (edge of the cube with its voxel's volume).

Truth. Phantoms: CT, T1 and T2 are scanned from one anatomy in one frame, so T itself. Patients:
their CT and MR were taken on different days and show different postures; the alignment stated in
the files is off by up to centimeters (see `given_mm` and the pictures), so T times the map that is
found without T (other drawing of points). That measures capture and repeatability, not accuracy.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import record
from vesalius.errors import NormalizationRefused
from vesalius.normalization.alignment.itk import image_of, matrix_of
from vesalius.normalization.alignment.poses import pose
from vesalius.normalization.alignment.pyramid import base_level
from vesalius.normalization.alignment.registration import register
from vesalius.volume import Volume

PATIENTS = ("STS_012", "STS_019", "STS_023", "STS_024", "STS_028", "STS_035")
PHANTOMS = (1, 2, 3, 4, 5, 6)
DEGREES, SHIFT_MM = 15.0, 30.0
TRUTH = (
    "Truth of phantoms: the applied motion. Truth of patients: the motion after what is found "
    "without it, which measures capture and repeatability, not accuracy; the alignment stated in "
    "the files is no truth (`given_mm` away from what is found; foot and calf are visibly off)."
)
DRAWS = {"CT-MR": 4, "CT-T1": 2, "T1-T2": 1, "T1-T1": 1}


@dataclass(frozen=True)
class Pair:
    """Two images and what is known of them: `truth` is None where it must be found."""

    case: str
    kind: str
    fixed: Volume
    moving: Volume
    truth: np.ndarray | None


def phantom_pairs(seed: int) -> Iterator[Pair]:
    from vesalius.cohorts.phantom import physics
    from vesalius.cohorts.phantom.exam import simulate_patient

    images = simulate_patient(seed, 0)
    rng = np.random.default_rng([seed, 77])
    t1 = images["T1"]
    again = t1.data[0] * physics.bias_field(t1.shape, 0.3, rng)
    again = physics.rician(again.astype(np.float32), 0.04 * float(again.max()), rng)
    rescan = t1.with_data(again[None].astype(np.float32))
    for kind, fixed, moving in (
        ("CT-T1", images["CT"], t1),
        ("T1-T2", t1, images["T2"]),
        ("T1-T1", t1, rescan),
    ):
        yield Pair(f"phantom {seed}", kind, fixed, moving, np.eye(4))


def patient_pair(folder: Path) -> Pair:
    from vesalius.io import read

    fixed = replace(read(folder / "CT_image.nii.gz"), modality="CT")
    moving = replace(read(folder / "MR_T1_image.nii.gz"), modality="MR")
    return Pair(folder.name, "CT-MR", fixed, moving, None)


def motion(
    rng: np.random.Generator, center: np.ndarray, degrees: tuple[float, float]
) -> np.ndarray:
    axis, way = rng.normal(size=3), rng.normal(size=3)
    turn = axis / np.linalg.norm(axis) * rng.uniform(*degrees)
    shift = way / np.linalg.norm(way) * rng.uniform(0, SHIFT_MM)
    return pose(turn, shift, center)


def targets(volume: Volume) -> np.ndarray:
    level = base_level(volume)
    voxels = np.argwhere(level.foreground)[::97]
    return voxels @ level.affine[:3, :3].T + level.affine[:3, 3]


def error_mm(points: np.ndarray, found: np.ndarray, truth: np.ndarray) -> float:
    gap = found - truth
    return float(np.linalg.norm(points @ gap[:3, :3].T + gap[:3, 3], axis=1).mean())


def recipe(fixed: Volume, moving: Volume) -> np.ndarray | None:
    """Return what one centered start with SimpleITK finds; None where it ends in an exception.

    SimpleITK's introductory example, with all voxels, two levels and regular steps instead of its
    own settings, which fail on these small grids: chosen for it on phantoms 100 to 102.
    """
    import SimpleITK

    one, two = (image_of(v.data[0].astype(np.float32), v.affine) for v in (fixed, moving))
    start = SimpleITK.CenteredTransformInitializer(
        one, two, SimpleITK.Euler3DTransform(),
        SimpleITK.CenteredTransformInitializerFilter.GEOMETRY,
    )  # fmt: skip
    method = SimpleITK.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(50)
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, 200)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([4, 0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    transform = SimpleITK.Euler3DTransform(start)
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(one, two)
    except RuntimeError:  # all samples map outside the moving image
        return None
    return matrix_of(transform)


def measure(pair: Pair, rng: np.random.Generator, seed: int) -> Iterator[dict[str, Any]]:
    """Yield one row for each motion of one pair."""
    points = targets(pair.fixed)
    center = base_level(pair.fixed).center
    voxel = max(float(np.cbrt(np.prod(v.spacing))) for v in (pair.fixed, pair.moving))
    truth, given = pair.truth, 0.0
    if truth is None:
        undisturbed = register(pair.fixed, pair.moving, seed=seed)
        truth, given = undisturbed.matrix, error_mm(points, undisturbed.matrix, np.eye(4))
    for draw in range(DRAWS[pair.kind]):
        turn = motion(rng, center, (0.0, DEGREES))
        moving = replace(pair.moving, affine=turn @ pair.moving.affine)
        cpu = time.process_time()
        found = register(pair.fixed, moving, seed=seed + draw + 1)
        cpu = time.process_time() - cpu
        gap = error_mm(points, found.matrix, turn @ truth)
        row = {
            "case": pair.case,
            "pair": pair.kind,
            "moved_mm": round(error_mm(points, turn, np.eye(4)), 1),
            "error_mm": round(gap, 2),
            "error_voxels": round(gap / voxel, 3),
            "verdict": str(found.verdict),
            "agreement_mm": round(found.agreement_mm, 2),
            "cpu_s": round(cpu, 1),
        }
        if pair.truth is None:
            yield {**row, "given_mm": round(given, 1)}
        else:
            alone = recipe(pair.fixed, moving)
            away = None if alone is None else error_mm(points, alone, turn @ truth) / voxel
            yield {**row, "recipe_error_voxels": None if away is None else round(away, 3)}


def hopeless(pairs: list[Pair], rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Yield rows for pairs that have no answer, or one beyond the range that is searched."""
    patients = [pair for pair in pairs if pair.truth is None]
    for one, other in zip(patients, [*patients[1:], *patients[:1]], strict=True):
        verdict = verdict_of(one.fixed, other.moving)[0]
        yield {"case": one.case, "pair": f"CT with MR of {other.case}", "verdict": verdict}
    for pair in pairs:
        if pair.kind != "CT-T1":
            continue
        turn = motion(rng, base_level(pair.fixed).center, (60.0, 120.0))
        moving = replace(pair.moving, affine=turn @ pair.moving.affine)
        verdict, matrix = verdict_of(pair.fixed, moving)
        gap = error_mm(targets(pair.fixed), matrix, turn)
        yield {"case": pair.case, "pair": "CT-T1 turned by 60 to 120 degrees",
               "error_mm": round(gap, 1), "verdict": verdict}  # fmt: skip


def verdict_of(fixed: Volume, moving: Volume) -> tuple[str, np.ndarray]:
    try:
        found = register(fixed, moving, trust_frame=False)
    except NormalizationRefused:
        return "refused", np.eye(4)
    return str(found.verdict), found.matrix


def main() -> None:
    """Measure all pairs and write `results/registration.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    folder = Path(os.environ["VESALIUS_DATA"]) / "sts"
    pairs = [patient_pair(folder / name) for name in PATIENTS]
    pairs += [pair for number in PHANTOMS for pair in phantom_pairs(number)]
    rng = np.random.default_rng([seed, 11])
    rows: list[dict[str, Any]] = []
    for pair in pairs:
        for row in measure(pair, rng, seed * 100):
            print(row, flush=True)
            rows.append(row)
    beyond = list(hopeless(pairs, rng))
    print(*beyond, sep="\n")
    path = record("registration", summary(rows, beyond, seed), data=folder)
    print(path)


def summary(rows: list[dict[str, Any]], beyond: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    errors = np.array([row["error_voxels"] for row in rows])
    known = np.array(["recipe_error_voxels" in row for row in rows])
    flagged = np.array([row["verdict"] == "flagged" for row in rows])
    failed = errors > 2
    alone = [row["recipe_error_voxels"] for row in rows if "recipe_error_voxels" in row]
    recipe_errors = np.array([np.inf if error is None else error for error in alone])
    low, high = (round(float(q), 2) for q in np.quantile(errors, (0.25, 0.75)))
    caught = [row for row in beyond if row["verdict"] != "passed"]
    solved = [row for row in beyond if row["verdict"] == "passed" and row.get("error_mm", 99) <= 12]
    seconds = np.median([row["cpu_s"] for row in rows])
    peer = f"the peer {np.mean(recipe_errors <= 2):.0%}, median {np.median(recipe_errors):.2f}"
    groups = {"phantoms (truth)": known, "patients (repeat)": ~known}
    return {
        "title": "Registration",
        "what": "Known rigid motions (up to 15 degrees and 30 mm) recovered between a patient's "
        "modalities; failures that say so.",
        "data": f"sts, {len(PATIENTS)} patients CT-MR; {len(PHANTOMS)} phantoms CT-T1, T1-T2, "
        f"T1-T1 with other noise and bias; {len(rows)} motions",
        "split": "reported: sts 012 to 035, phantom seeds below 100. Constants were chosen on sts "
        "003 and 008 and phantom seeds 100 and above",
        "unit": "voxels of the coarser image (edge of the cube of equal volume: 1.5 mm in sts, "
        "about 6 mm in phantoms), mean over the fixed foreground",
        "peer": "SimpleITK's introductory example (boxes centered, one start, Mattes, all voxels, "
        "two levels; settings chosen for it on phantoms 100 to 102), on phantoms",
        "baseline": f"left where it was: {np.median([row['moved_mm'] for row in rows]):.0f} mm "
        "median",
        "noise": f"quartiles {low} to {high} voxels over the motions",
        "remarks": [
            TRUTH,
            *(
                f"{name}: median {np.median(errors[group]):.2f}, worst {errors[group].max():.2f} "
                f"voxels, {np.mean(errors[group] <= 2):.0%} within 2"
                for name, group in groups.items()
            ),
            f"Within 2 voxels on phantoms: {np.mean(errors[known] <= 2):.0%}; {peer}.",
            f"One registration takes {seconds:.1f} s of one core (median).",
        ],
        "bars": [
            {"bar": "median error, all motions", "target": "<= 1 voxel",
             "measured": round(float(np.median(errors)), 2), "spread": f"{low} to {high}",
             "met": bool(np.median(errors) <= 1)},
            {"bar": "motions recovered within 2 voxels", "target": ">= 95 %",
             "measured": f"{np.mean(~failed):.1%} of {len(rows)}",
             "met": bool(np.mean(~failed) >= 0.95)},
            {"bar": "failures that are not flagged", "target": "0",
             "measured": int((failed & ~flagged).sum()), "met": not (failed & ~flagged).any()},
            {"bar": "right ones that are flagged", "target": "stated",
             "measured": f"{int((~failed & flagged).sum())} of {int((~failed).sum())}",
             "met": True},
            {"bar": "hopeless pairs flagged, refused or solved", "target": "stated",
             "measured": f"{len(caught) + len(solved)} of {len(beyond)}", "met": True},
        ],
        "rows": rows,
        "hopeless": beyond,
        "seed": seed,
    }  # fmt: skip


if __name__ == "__main__":
    main()
