# SPDX-License-Identifier: Apache-2.0
"""Laws of splitting: no patient and no look-alike on both sides, order does not matter."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.cohorts.assess import SIGNATURE
from vesalius.cohorts.splits import PARTS, Split, split_table
from vesalius.cohorts.stratify import strata
from vesalius.errors import CohortError, UsageError


def table(rows: list[dict[str, Any]]) -> pa.Table:
    """Return a table of images; what a row does not say is unknown."""
    types = {
        "key": pa.string(),
        "patient": pa.string(),
        "patient_source": pa.string(),
        "study": pa.string(),
        "modality": pa.string(),
        "site": pa.string(),
        "scanner": pa.string(),
        "split": pa.string(),
        "content_hash": pa.string(),
        "phash": pa.int64(),
        "signature": pa.binary(),
        "shape": pa.list_(pa.int32()),
        **{f"stat_{name}": pa.float64() for name in ("median", "p99", "mad", "mean", "std")},
    }
    labels = sorted({name for row in rows for name in row if name.startswith("label_")})
    columns: dict[str, Any] = {}
    for name, kind in types.items():
        columns[name] = pa.array([row.get(name) for row in rows], kind)
    for name in labels:
        columns[name] = pa.array([row.get(name) for row in rows])
    columns["patient_source"] = pa.array(
        [row.get("patient_source", "dicom" if row.get("patient") else "none") for row in rows]
    )
    return pa.table(columns)


def patients(
    n: int, each: int = 3, classes: int = 2, sites: int = 1, seed: int = 0
) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "key": f"{patient:03d}-{image}",
            "patient": f"p-{patient}",
            "content_hash": f"c-{patient}-{image}",
            "site": f"i-{patient % sites}",
            "label_kind": ["ab", "cd", "ef", "gh"][patient % classes],
        }
        for patient in range(n)
        for image in range(1 + int(rng.integers(each)))
    ]


def sides(split: Split, rows: list[dict[str, Any]], column: str) -> dict[Any, set[str]]:
    found: dict[Any, set[str]] = defaultdict(set)
    for row in rows:
        found[row[column]].add(split.rows[row["key"]])
    return found


@st.composite
def cohorts(draw: st.DrawFn) -> list[dict[str, Any]]:
    rows = patients(
        draw(st.integers(3, 25)),
        draw(st.integers(1, 5)),
        draw(st.integers(1, 4)),
        seed=draw(st.integers(0, 99)),
    )
    for row in rows:
        if draw(st.integers(0, 9)) == 0:  # a copy of some other row
            row["content_hash"] = rows[draw(st.integers(0, len(rows) - 1))]["content_hash"]
    return rows


@settings(max_examples=40, deadline=None)
@given(cohorts(), st.integers(0, 5), st.randoms())
def test_laws(rows: list[dict[str, Any]], seed: int, random: Any) -> None:
    joined = {row["patient"]: row["patient"] for row in rows}
    for _ in rows:  # copies join patients
        for a in rows:
            for b in rows:
                if a["content_hash"] == b["content_hash"]:
                    joined[a["patient"]] = min(joined[a["patient"]], joined[b["patient"]])
                    joined[b["patient"]] = joined[a["patient"]]
    if len(set(joined.values())) < 3:
        with pytest.raises(CohortError, match="cannot fill"):
            split_table(table(rows), targets=["kind"], seed=seed)
        return
    split = split_table(table(rows), targets=["kind"], seed=seed)
    assert set(split.rows) == {row["key"] for row in rows}
    assert set(split.rows.values()) == set(PARTS)
    assert all(len(found) == 1 for found in sides(split, rows, "patient").values())
    assert all(len(found) == 1 for found in sides(split, rows, "content_hash").values())
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert split_table(table(shuffled), targets=["kind"], seed=seed) == split


def test_fractions_and_classes_are_kept_within_a_group() -> None:
    rows = patients(120, each=3, classes=4)
    split = split_table(table(rows), targets=["kind"], fractions=(0.7, 0.1, 0.2))
    total = Counter(row["label_kind"] for row in rows)
    for subset, part in zip(PARTS, (0.7, 0.1, 0.2), strict=True):
        keys = set(split.keys(subset))
        assert abs(len(keys) - part * len(rows)) <= 3
        held = Counter(row["label_kind"] for row in rows if row["key"] in keys)
        for name in total:
            assert abs(held[name] - part * total[name]) <= 3


def test_a_rare_class_reaches_every_subset() -> None:
    rows = patients(60, each=2)
    for row in rows:
        row["label_kind"] = "rare" if row["patient"] in ("p-1", "p-2", "p-3") else "usual"
    split = split_table(table(rows), targets=["kind"])
    found = {split.rows[row["key"]] for row in rows if row["label_kind"] == "rare"}
    lacking = [line for line in split.audit if line.startswith("WARNING") and "rare" in line]
    assert "train" in found
    assert len(found) + len(lacking) == 3


def test_measured_and_several_targets_are_balanced() -> None:
    rng = np.random.default_rng(0)
    rows = patients(150, each=1)
    for row in rows:
        row["label_age"] = float(rng.normal(50, 10))
        row["label_nodule"] = bool(rng.random() < 0.2)
    split = split_table(table(rows), targets=["age", "nodule"])
    age = {row["key"]: row["label_age"] for row in rows}
    nodule = {row["key"]: row["label_nodule"] for row in rows}
    whole = np.array(list(age.values()))
    for subset in PARTS:
        keys = split.keys(subset)
        assert np.mean([age[key] for key in keys]) == pytest.approx(whole.mean(), abs=2.5)
        share = np.mean([nodule[key] for key in keys])
        assert share == pytest.approx(np.mean(list(nodule.values())), abs=0.05)
    assert strata([1, 2, None, float("nan"), ""], "x") == [(("x", 1),), (("x", 2),), (), (), ()]
    assert {len(set(part)) for part in [strata(list(whole), "x")]} == {5}


def test_lookalikes_of_two_patients_stay_together() -> None:
    rng = np.random.default_rng(0)
    rows = patients(40, each=1)
    for n, row in enumerate(rows):
        row["phash"] = int(rng.integers(-(2**63), 2**63 - 1))
        row["signature"] = rng.integers(-127, 128, SIGNATURE).astype(np.int8).tobytes()
        if n >= 30:  # looks like patient n - 30, one bit and a little noise apart
            row["phash"] = rows[n - 30]["phash"] ^ 1
            noisy = np.frombuffer(rows[n - 30]["signature"], np.int8) * 0.9
            row["signature"] = noisy.astype(np.int8).tobytes()
    split = split_table(table(rows))
    for n in range(30, 40):
        assert split.rows[rows[n]["key"]] == split.rows[rows[n - 30]["key"]]
    assert any(
        "near-duplicates" in line and "joined 40 groups to 30" in line for line in split.audit
    )


def test_volumes_of_unknown_patients_are_paired_by_sides() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for person in range(20):
        own = rng.integers(-100, 100, SIGNATURE)
        for side in range(2):
            noise = rng.integers(-40, 41, SIGNATURE)
            statistics = {
                f"stat_{name}": float(100 * (person + 1) ** 2 + value)
                for value, name in enumerate(("median", "p99", "mad", "mean", "std"))
            }
            rows.append(
                {
                    "key": f"{person:02d}{side}",
                    "patient": f"p-{person}-{side}",
                    "patient_source": "none",
                    "content_hash": f"{person} {side}",
                    "phash": int(rng.integers(-(2**63), 2**63 - 1)),
                    "signature": np.clip(own + noise, -127, 127).astype(np.int8).tobytes(),
                    "shape": [1, 30, 30, 30],
                    **statistics,
                }
            )
    split = split_table(table(rows))
    assert all(split.rows[f"{n:02d}0"] == split.rows[f"{n:02d}1"] for n in range(20))
    assert any("probable sides" in line for line in split.audit)


def test_official_split_is_kept_and_leaks_are_told() -> None:
    rows = patients(30, each=3)
    for row in rows:
        row["split"] = "test" if row["key"].endswith("0") and row["patient"] < "p-2" else "train"
    split = split_table(table(rows))
    for row in rows:
        if row["split"] == "test":
            assert split.rows[row["key"]] == "test"
        else:
            assert split.rows[row["key"]] in ("train", "val")
    assert any("leaks" in line and line.startswith("WARNING") for line in split.audit)
    assert any("carved" in line and "val" in line for line in split.audit)
    carved = [row for row in rows if split.rows[row["key"]] == "val"]
    assert 0.1 < len(carved) / len(rows) < 0.4
    beside = sides(split, rows, "patient")
    assert not any({"train", "val"} <= found for found in beside.values())
    clean = split_table(table(rows), official=False)
    assert all(len(found) == 1 for found in sides(clean, rows, "patient").values())


def test_rows_that_the_official_split_leaves_out_follow_their_patient() -> None:
    rows = patients(30, each=4)
    for row in rows:
        number = int(row["key"][:3])
        if row["key"].endswith("0"):
            row["split"] = ("train", "val", "test")[number % 3]
    split = split_table(table(rows))
    for row in rows:
        assert split.rows[row["key"]] == ("train", "val", "test")[int(row["key"][:3]) % 3]


def test_whole_sites_are_held_out() -> None:
    rows = patients(60, each=3, sites=4)
    split = split_table(table(rows), by_site=True)
    by_site = sides(split, rows, "site")
    assert all(found in ({"test"}, {"train", "val"}) for found in by_site.values())
    assert {"test"} in by_site.values()
    assert all(len(found) == 1 for found in sides(split, rows, "patient").values())
    with pytest.raises(CohortError, match="by_site needs two"):
        split_table(table(patients(60)), by_site=True)
    for row in rows:
        row["scanner"], row["site"] = row["site"], ""
    assert any("scanner" in line for line in split_table(table(rows), by_site=True).audit)


def test_ungrouped_needs_its_name_and_says_so() -> None:
    rows = patients(10, each=8)
    assert all(len(s) == 1 for s in sides(split_table(table(rows)), rows, "patient").values())
    split = split_table(table(rows), ungrouped=True)
    assert any(len(found) > 1 for found in sides(split, rows, "patient").values())
    assert split.audit[0].startswith("WARNING: ungrouped")


def test_three_patients_suffice_and_two_are_told() -> None:
    split = split_table(table(patients(3)))
    assert Counter(split.rows.values()).keys() == set(PARTS)
    with pytest.raises(CohortError, match=r"2 group.*3 subsets.*add patients"):
        split_table(table(patients(2)))
    two = split_table(table(patients(2)), fractions=(0.7, 0.3, 0))
    assert set(two.rows.values()) == {"train", "val"}
    with pytest.raises(CohortError, match="no rows"):
        split_table(table([]))


@pytest.mark.parametrize(
    "fractions",
    [(0.5, 0.5), (0.6, 0.6, -0.2), (0, 0.5, 0.5), (0.5, 0.2, 0.2), (1, float("nan"), 0)],
)
def test_fractions_are_checked(fractions: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="sum to 1"):
        split_table(table(patients(5)), fractions=fractions)


def test_seeds_differ_and_repeat() -> None:
    rows = table(patients(40))
    assert split_table(rows, seed=1) == split_table(rows, seed=1)
    assert split_table(rows, seed=1).digest() != split_table(rows, seed=2).digest()


def test_a_cohort_without_pixels_is_told() -> None:
    rows = patients(10)
    for row in rows:
        row["content_hash"] = None
    assert any("without pixels" in line for line in split_table(table(rows)).audit)


def test_file_round_trip_and_edits(tmp_path: Path) -> None:
    split = split_table(table(patients(10)), targets=["kind"])
    path = split.save(tmp_path / "split.json")
    assert Split.load(path) == split
    value = json.loads(path.read_text())
    first = next(iter(value["rows"]))
    value["rows"][first] = "test" if value["rows"][first] != "test" else "train"
    path.write_text(json.dumps(value))
    with pytest.raises(CohortError, match="changed after it was written"):
        Split.load(path)
    path.write_text('{"rows": {"a": "training"}}')
    with pytest.raises(CohortError, match="not a split"):
        Split.load(path)
    with pytest.raises(CohortError, match="cannot be read"):
        Split.load(tmp_path / "absent.json")
    with pytest.raises(UsageError, match="Did you mean 'train'"):
        split.keys("trian")  # type: ignore[arg-type]
