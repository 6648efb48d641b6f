# SPDX-License-Identifier: Apache-2.0
"""Each finding planted in an image that is clean without it; real images raise no false alarm."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import ndimage

from vesalius.cohorts.assess import SIGNATURE, assess
from vesalius.cohorts.quality import (
    FINDINGS,
    check_cohort,
    check_image,
    check_mask,
    check_stack,
    finding,
)
from vesalius.results import Finding
from vesalius.volume import LabelMap, Volume

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
SHAPE = (112, 96, 12)


def body(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Return the share of tissue, 0 (air) to 1, and organs of other brightness, in 0…1."""
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    trunk = ((i / 0.75) ** 2 + (j / 0.65) ** 2 < 1) * 0.6
    trunk[((i - 0.25) ** 2 + j**2 < 0.06) & (trunk > 0)] = 0.85
    trunk[((i + 0.3) ** 2 + (j + 0.1) ** 2 < 0.03) & (trunk > 0)] = 0.4
    trunk[(i**2 + (j - 0.45) ** 2 < 0.012) & (trunk > 0)] = 1.0 + 0 * k[0, 0, 0]
    return ndimage.gaussian_filter(trunk, (0.7, 0.7, 0.3))


def ct() -> Volume:
    rng = np.random.default_rng(0)
    tissue = body()
    values = np.where(tissue > 0.3, 300 * tissue - 120, 1100 * tissue / 0.3 * 0.9 - 1000)
    return Volume(
        np.rint(values + rng.normal(0, 12, SHAPE)).astype(np.int16)[None], AFFINE, "CT", "HU"
    )


def mr() -> Volume:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 15, (2, *SHAPE))
    values = np.hypot(900 * body() + noise[0], noise[1])
    return Volume(np.rint(values).astype(np.uint16)[None], AFFINE, "MR")


def xray() -> Volume:
    rng = np.random.default_rng(0)
    values = 3000 * body((160, 200, 3))[:, :, 1] + 100 + rng.normal(0, 15, (160, 200))
    return Volume(np.rint(values).astype(np.uint16)[None, :, :, None], AFFINE, "DX")


def check(volume: Volume, mask: LabelMap | None = None) -> list[Finding]:
    return check_image(volume, assess(volume).columns(), mask)


def names(found: list[Finding]) -> set[str]:
    return {one.name for one in found}


@pytest.mark.parametrize("make", [ct, mr, xray])
def test_clean_images_raise_nothing(make: Callable[[], Volume]) -> None:
    assert check(make()) == []


def edit(volume: Volume, change: Callable[[np.ndarray], np.ndarray | None]) -> Volume:
    """Return the volume with `change` applied to its float64 values `(i, j, k)`, in its dtype."""
    values = volume.data[0].astype(np.float64)
    changed = change(values)
    values = values if changed is None else changed
    bounds = np.iinfo(volume.data.dtype)
    stored = np.rint(values).clip(bounds.min, bounds.max).astype(volume.data.dtype)
    return replace(volume, data=stored[None])


def _write(values: np.ndarray) -> None:
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (110, 26), 0)
    draw = ImageDraw.Draw(canvas)
    draw.text((3, 2), "DOE^JANE 1970", fill=255)
    drawn = np.asarray(canvas).T / 255.0
    values[4:114, 4:30, 0] = values.min() + (values.max() - values.min()) * drawn


def _one_slice(values: np.ndarray) -> None:
    values[..., 5] = values.min()


def _copy(values: np.ndarray) -> None:
    values[..., 7] = values[..., 6]


def _slope(values: np.ndarray) -> None:
    values[..., 4] = (values[..., 4] + 1024) * 1.6 - 1024


def _noisy_slice(values: np.ndarray) -> None:
    values[..., 4] += np.random.default_rng(1).normal(0, 90, values.shape[:2])


def _bias(values: np.ndarray) -> np.ndarray:
    return values * np.exp(np.linspace(1.6, -1.6, values.shape[0]))[:, None, None] / 2


def _ghost(values: np.ndarray) -> np.ndarray:
    return (values + 0.4 * np.roll(values, values.shape[1] // 2, axis=1)) / 1.2


def _noise(values: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.hypot(values + rng.normal(0, 500, values.shape), rng.normal(0, 500, values.shape))


PLANTED: list[tuple[str, Callable[[], Volume], Callable[[np.ndarray], np.ndarray | None]]] = [
    ("constant-image", mr, lambda v: np.full_like(v, 120)),
    ("near-constant-image", mr, lambda v: np.where(np.arange(v.size).reshape(v.shape) % 211, 7, v)),
    ("clipping", xray, lambda v: (v - 600) * 40),
    ("clipping", ct, lambda v: v.clip(-160, 30)),
    ("extreme-noise", mr, _noise),
    ("strong-bias-field", mr, _bias),
    ("ghosting-suspected", mr, _ghost),
    ("inverted-photometric", xray, lambda v: v.max() - v),
    ("inverted-photometric", mr, lambda v: v.max() - v),
    ("not-hounsfield", ct, lambda v: v + 1024),
    ("not-hounsfield", ct, lambda v: (v.clip(-160, 240) + 160) / 400 * 255),
    ("not-hounsfield", ct, lambda v: v * 2),
    ("burned-in-text-suspected", xray, _write),
    ("constant-slice", mr, _one_slice),
    ("duplicate-slices", ct, _copy),
    ("uneven-slope", ct, _slope),
    ("uneven-slope", mr, lambda v: v * np.where(np.arange(v.shape[2]) < 6, 1, 2)),
    ("noisy-slice", mr, _noisy_slice),
    ("tiny-image", mr, lambda v: v[::8, ::8]),
]


@pytest.mark.parametrize(("name", "make", "change"), PLANTED)
def test_planted_defects_are_found(
    name: str, make: Callable[[], Volume], change: Callable[[np.ndarray], np.ndarray | None]
) -> None:
    found = check(edit(make(), change))
    assert name in names(found)
    for one in found:
        assert one.severity == FINDINGS[one.name].severity
        assert FINDINGS[one.name].way_out in one.message
        json.dumps(one.evidence, allow_nan=False)


def test_slices_are_named() -> None:
    for change, name, place in (
        (_one_slice, "constant-slice", 5),
        (_copy, "duplicate-slices", 7),
        (_slope, "uneven-slope", 4),
        (_noisy_slice, "noisy-slice", 4),
    ):
        make = ct if name in ("duplicate-slices", "uneven-slope") else mr
        places = [one.slice for one in check(edit(make(), change)) if one.name == name]
        assert places == [place], name


def test_many_bad_slices_are_counted_in_one_line() -> None:
    volume = mr()
    repeated = volume.data[..., np.repeat(np.arange(12), 2)]
    found = check(replace(volume, data=repeated))
    assert Counter(one.name for one in found) == {"duplicate-slices": 5}
    assert found[-1].evidence["slices"] == 12


def test_blank_slices_at_the_ends_are_padding() -> None:
    padded = np.pad(ct().data, ((0, 0), (0, 0), (0, 0), (3, 2)), constant_values=-1000)
    assert check(replace(ct(), data=padded)) == []


def test_values_that_are_not_finite_and_sizes() -> None:
    data = mr().data.astype(np.float32)
    data[0, 3, 4, 5] = np.nan
    found = check(replace(mr(), data=data))
    assert [one.name for one in found] == ["non-finite-values"]
    assert found[0].evidence["voxels"] == 1
    huge = Volume(np.broadcast_to(np.uint8(0), (1, 20_000, 16, 1)), AFFINE)
    assert "huge-image" in names(check_image(huge, {"stat_min": None}))


def test_the_row_key_is_carried() -> None:
    volume = edit(mr(), lambda v: np.full_like(v, 1))
    row = {**assess(volume).columns(), "key": "0123456789abcdef"}
    assert {one.key for one in check_image(volume, row)} == {"0123456789abcdef"}


def labels(volume: Volume) -> LabelMap:
    data = (volume.data > volume.data.mean()).astype(np.uint8)
    return LabelMap(data, volume.affine, names={1: "body"})


def test_masks() -> None:
    volume = ct()
    good = labels(volume)
    assert check(volume, good) == []
    assert names(check(volume, replace(good, data=good.data * 3))) == {"unknown-label-value"}
    negative = LabelMap(good.data.astype(np.int16) * -1, good.affine)
    assert names(check_mask(negative)) == {"unknown-label-value"}
    assert names(check(volume, replace(good, data=good.data * 0))) == {"empty-mask"}
    assert names(check_mask(replace(good, data=good.data * 0 + 1))) == {"constant-mask"}
    shifted = good.affine.copy()
    shifted[:3, 3] += 0.5 * np.array(volume.spacing)
    for off in (
        replace(good, affine=shifted),
        replace(good, affine=good.affine @ np.diag([1.02, 1, 1, 1])),
        LabelMap(good.data[:, :-1], good.affine, names={1: "body"}),
    ):
        assert names(check(volume, off)) == {"mask-off-grid"}
    near = good.affine + 0
    near[0, 3] += 1e-4
    assert check(volume, replace(good, affine=near)) == []
    assert check(volume, replace(good, affine=shifted, calibrated=False)) == []


def test_captures_and_label_maps_are_not_judged_as_scans() -> None:
    screen = edit(ct(), lambda v: (v.clip(-160, 240) + 160) / 400 * 255)
    row = {**assess(screen).columns(), "kind": "secondary-capture"}
    assert "not-hounsfield" not in names(check_image(screen, row))
    drawn = labels(ct())
    assert check_image(drawn, assess(drawn).columns()) == []
    assert names(check(replace(drawn, data=drawn.data * 0))) == {"empty-mask"}


def test_problems_of_a_stack_become_findings() -> None:
    @dataclass
    class Stack:
        problems: list[tuple[Any, ...]]

    expected = [
        "missing-slices",
        "duplicate-slices",
        "uneven-spacing",
        "truncated-pixel-data",
        "uneven-slope",
        "orientation-contradiction",
        "two-patients",
        "two-studies",
        "mixed-orientation",
        "gantry-tilt",
        "no-spacing",
        "no-position",
    ]
    stack = Stack([(name, "error", n, f"seen in {n}", {"n": n}) for n, name in enumerate(expected)])
    found = check_stack(stack)
    assert [one.name for one in found] == expected
    assert [one.slice for one in found] == list(range(len(expected)))
    assert all(one.message.startswith(f"seen in {n};") for n, one in enumerate(found))
    with pytest.raises(KeyError):
        check_stack(Stack([("made-up", "error", None, "", {})]))


def cohort(n: int = 12, **changes: dict[int, Any]) -> pa.Table:
    """Return a clean table of `n` patients, some cells changed: `column={row: value}`."""
    rng = np.random.default_rng(0)
    columns: dict[str, list[Any]] = {
        "key": [f"{row:04d}" for row in range(n)],
        "patient": [f"p-{row}" for row in range(n)],
        "patient_source": ["dicom"] * n,
        "kind": ["image"] * n,
        "modality": ["MR"] * n,
        "scanner": [f"maker|{row % 2}" for row in range(n)],
        "content_hash": [f"c-{row}" for row in range(n)],
        "phash": rng.integers(-(2**63), 2**63 - 1, n).tolist(),
        "signature": [
            rng.integers(-127, 128, SIGNATURE).astype(np.int8).tobytes() for _ in range(n)
        ],
        "stat_p01": [0.0] * n,
        "stat_p99": [1000.0] * n,
        "mask_files": [["mask"]] * n,
        "mask_names": ['{"1": "liver"}'] * n,
        "split": [None] * n,
        "label_kind": ["a"] * n,
    }
    for name, cells in changes.items():
        for row, value in cells.items():
            columns[name][row] = value
    types = {
        **dict.fromkeys(("key", "patient", "content_hash", "split"), pa.string()),
        **dict.fromkeys(("stat_p01", "stat_p99"), pa.float64()),
        "phash": pa.int64(),
        "signature": pa.binary(),
        "mask_files": pa.list_(pa.string()),
    }
    return pa.table({name: pa.array(cells, types.get(name)) for name, cells in columns.items()})


def test_a_clean_cohort_raises_nothing() -> None:
    assert check_cohort(cohort()) == []
    assert check_cohort(cohort(0)) == []
    scanned_without_pixels = dict.fromkeys(range(12))
    for name in ("content_hash", "phash", "signature", "stat_p01", "stat_p99"):
        assert check_cohort(cohort(**{name: scanned_without_pixels})) == []


def test_cohort_findings() -> None:
    base = cohort()
    look = {name: base[name][3].as_py() for name in ("phash", "signature")}
    near = {name: {7: value} for name, value in look.items()}
    cases: dict[str, pa.Table] = {
        "exact-duplicate": cohort(content_hash={7: "c-3"}),
        "near-duplicate-across-patients": cohort(**near),
        "near-duplicate": cohort(**near, patient_source=dict.fromkeys(range(12), "none")),
        "image-without-label": cohort(label_kind={5: None}),
        "image-without-mask": cohort(mask_files={5: []}, mask_names={5: None}),
        "unknown-label-value": cohort(mask_names={5: '{"1": "liver", "6": "implant"}'}),
        "mixed-scanner-scale": cohort(stat_p99=dict.fromkeys(range(0, 12, 2), 40.0)),
        "leaking-split": cohort(
            split={row: "test" if row > 8 else "train" for row in range(12)}, patient={10: "p-1"}
        ),
    }
    for name, table in cases.items():
        assert names(check_cohort(table)) == {name}, name
    exact = check_cohort(cases["exact-duplicate"])[0]
    assert exact.evidence["keys"] == ["0003", "0007"]
    assert exact.severity == "error"  # two patients share it
    unknown = cohort(content_hash={7: "c-3"}, patient_source=dict.fromkeys(range(12), "none"))
    assert check_cohort(unknown)[0].severity == "warning"
    assert check_cohort(cohort(**near, patient={7: "p-3"})) == []  # frames of one person
    shared = cohort(**near, split={row: "test" if row > 5 else "train" for row in range(12)})
    assert names(check_cohort(shared)) == {"near-duplicate-across-patients", "leaking-split"}
    both = cohort(content_hash={7: "c-3"}, **near)
    assert names(check_cohort(both)) == {"exact-duplicate"}


def test_the_table_is_complete() -> None:
    assert len(FINDINGS) >= 30
    for name, kind in FINDINGS.items():
        assert kind.what
        assert kind.way_out
        assert finding(name, "x").severity == kind.severity
    with pytest.raises(KeyError):
        finding("made-up", "x")


def _nifti(path: Path, modality: str) -> Volume:
    import nibabel as nib

    image = nib.load(path)
    return Volume(np.asarray(image.dataobj)[None], image.affine, modality)


def test_real_ct_and_pet_raise_nothing(data: Callable[[str], Path]) -> None:
    for patient in sorted(data("sts").iterdir())[:3]:
        assert check(_nifti(patient / "CT_image.nii.gz", "CT")) == []
        assert check(_nifti(patient / "PET_image.nii.gz", "PT")) == []


def test_real_hippocampi_raise_nothing(data: Callable[[str], Path]) -> None:
    for path in sorted((data("hippocampus") / "images").iterdir())[::10]:
        assert check(_nifti(path, "MR")) == []


def test_real_pictures_with_and_without_text(data: Callable[[str], Path]) -> None:
    from PIL import Image

    def suspected(paths: list[Path]) -> float:
        found = 0
        for path in paths:
            pixels = np.asarray(Image.open(path).convert("L")).T[None, :, :, None]
            found += "burned-in-text-suspected" in names(check(Volume(pixels, AFFINE)))
        return found / len(paths)

    assert suspected(sorted((data("sunnybrook") / "images").iterdir())[::20]) == 0
    assert suspected(sorted((data("medpix") / "images").iterdir())[::20]) > 0.3  # nearly all have


def test_clean_simulated_patients_raise_nothing() -> None:
    from vesalius.cohorts.phantom.exam import simulate_patient

    for index in range(3):
        images = simulate_patient(7, index)
        mask = images.pop("mask")
        assert isinstance(mask, LabelMap)
        for kind, volume in images.items():
            assert check(volume, mask if kind == "CT" else None) == [], (index, kind)


@pytest.mark.slow
def test_every_defect_of_the_phantom_is_found_and_nothing_else(tmp_path: Path) -> None:
    from benchmarks.quality import measure

    spoiled = measure(tmp_path / "spoiled", patients=20, defects=True, seed=1)
    assert spoiled["missed"] == []
    assert spoiled["false_alarms_per_row"] <= 0.05
    clean = measure(tmp_path / "clean", patients=20, defects=False, seed=1)
    assert clean["false_alarms_per_row"] <= 0.02
