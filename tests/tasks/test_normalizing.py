# SPDX-License-Identifier: Apache-2.0
"""What training fits and covers: windows for CT, methods for the rest, units as they come."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from vesalius.errors import CorruptFile, NormalizationRefused, UsageError
from vesalius.normalization import Coverage, Normalizer
from vesalius.tasks.normalizing import fitted_normalizer, method_name
from vesalius.volume import LabelMap, Volume

SHAPE = (16, 16, 8)


def ct(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    body = np.linalg.norm(np.indices(SHAPE) - np.reshape([8, 8, 4], (3, 1, 1, 1)), axis=0) < 7
    return np.where(body, rng.normal(40, 20, SHAPE), -1000).astype(np.int16)


class MemoryCohort:
    """Volumes by key, with what `fitted_normalizer` asks of rows."""

    def __init__(self, **volumes: Volume) -> None:
        self.volumes = volumes

    def rows(self) -> list[dict]:
        return [
            {
                "key": key,
                "modality": volume.modality,
                "format": "dicom" if volume.unit else "nifti",
                "stat_p01": float(np.percentile(volume.data, 1)),
                "stat_p99": float(np.percentile(volume.data, 99)),
            }
            for key, volume in self.volumes.items()
        ]

    def read(self, row: dict) -> Volume:
        if row["key"].startswith("broken"):
            raise CorruptFile("cut short")
        return self.volumes[row["key"]]

    def read_mask(self, row: dict) -> LabelMap:
        assert row["key"] in self.volumes
        mask = np.zeros((1, *SHAPE), np.uint8)
        mask[0, 6:10, 6:10, 3:5] = 1
        return LabelMap(mask, np.eye(4))


def of(data: np.ndarray, modality: str, unit: str = "") -> Volume:
    return Volume(data[None], np.eye(4), modality=modality, unit=unit)


def fitted(cohort: MemoryCohort, path, method: str = "mad", **more) -> Normalizer:
    run = SimpleNamespace(
        path=path,
        plan={"seed": 0},
        decisions={"normalization": method, "values": [1]},
        normalizer=lambda: Normalizer.load(path / "normalizer.json"),
    )
    cases = [SimpleNamespace(rows=[row]) for row in cohort.rows()]
    return fitted_normalizer(run, cohort, cases, **more)


def test_ct_gets_a_window_of_its_training_values(tmp_path) -> None:
    cohort = MemoryCohort(a=of(ct(0), "CT", "HU"), b=of(ct(1), "CT", "HU"), c=of(ct(2), "MR"))
    made = fitted(cohort, tmp_path)
    window = made.fitted["CT HU"]
    inside = np.concatenate([ct(n)[ct(n) > -900] for n in (0, 1)])
    assert window.mean == pytest.approx(inside.mean(), abs=3)
    assert window.std == pytest.approx(inside.std(), rel=0.15)
    assert -60 < window.low < 0 < 80 < window.high < 140
    assert set(made.fitted) == {"CT HU"}
    assert made.covers["CT"].unit == "HU"
    assert made.covers["CT"].low == -1000
    assert made.covers["MR"] == Coverage()
    assert made.method.card.name == "mad"
    assert Normalizer.load(tmp_path / "normalizer.json") == made


def test_it_is_fitted_once(tmp_path) -> None:
    first = fitted(MemoryCohort(a=of(ct(0), "CT", "HU")), tmp_path)
    assert fitted(MemoryCohort(a=of(ct(5) + 100, "CT", "HU")), tmp_path) == first


def test_windows_of_labelled_voxels(tmp_path) -> None:
    values = ct(0)
    values[6:10, 6:10, 3:5] = np.random.default_rng(0).normal(300, 10, (4, 4, 2))
    made = fitted(MemoryCohort(a=of(values, "CT", "HU")), tmp_path, labelled=[1])
    assert made.fitted["CT HU"].mean == pytest.approx(300, abs=8)


def test_a_fitted_method_is_fitted_for_each_group(tmp_path) -> None:
    cohort = MemoryCohort(
        a=of(ct(0), "CT", "HU"),
        b=of(ct(1) + 1500, "MR"),
        c=of(ct(2) + 1500, "MR"),
        d=of(ct(3) * 4 + 9000, "US"),
        broken=of(ct(4), "MR"),
    )
    made = fitted(cohort, tmp_path, "nyul")
    assert set(made.fitted) == {"CT HU", "MR", "US"}
    assert made.fitted["CT HU"].card.name == "window"
    assert made.fitted["MR"].card.name == "nyul"
    assert made.method.card.name == "mad"  # what nothing was fitted on gets no other group's fit
    assert made.fitted["MR"] != made.fitted["US"]
    for volume in cohort.volumes.values():
        assert np.isfinite(made.apply(volume).data).all()


@pytest.mark.parametrize("method", ["mad", "nyul"])
def test_images_that_state_a_unit_cover_themselves(method: str, tmp_path) -> None:
    """Diffusion maps are MR in mm2/s: they can be trained on, arbitrary MR is then refused."""
    cohort = MemoryCohort(a=of(ct(0) + 1500, "MR", "mm2/s"), b=of(ct(1) + 1500, "MR", "mm2/s"))
    made = fitted(cohort, tmp_path, method)
    assert made.covers["MR"].unit == "mm2/s"
    assert made.apply(cohort.volumes["a"]).data.std() > 0
    with pytest.raises(NormalizationRefused, match="this image's are in arbitrary units"):
        made.apply(of(ct(0) + 1500, "MR"))


@pytest.mark.parametrize("method", ["mad", "nyul"])
def test_images_of_several_units_cover_all_of_them(method: str, tmp_path) -> None:
    cohort = MemoryCohort(a=of(ct(0) + 1500, "MR", "mm2/s"), b=of(ct(1) + 1500, "MR", "Hz"))
    made = fitted(cohort, tmp_path, method)
    assert made.covers["MR"] == Coverage(None)
    for volume in cohort.volumes.values():
        assert made.apply(volume).data.std() > 0


def test_the_name_that_a_plan_states() -> None:
    assert method_name("auto") == "mad"
    assert method_name("nyul") == "nyul"
    for name in ("n4", "window", "macenko", "combat"):
        with pytest.raises(UsageError, match="cannot stand in front of a network"):
            method_name(name)
    with pytest.raises(UsageError, match="Did you mean 'zscore'"):
        method_name("zscroe")
