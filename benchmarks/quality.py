# SPDX-License-Identifier: Apache-2.0
"""Findings against the phantom's truth: recall of each planted defect, false alarms on clean data.

A finding counts as found when it is named for a row, file or patient that the defect touches. A
false alarm is a finding on the phantom without defects, and on the spoiled one any finding on a
series that holds no defect.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from benchmarks.record import record

# findings that speak of the whole cohort's completeness and are true of the clean phantom too
_EXPECTED_CLEAN = frozenset({"image-without-mask"})


def measure(folder: Path, *, patients: int, defects: bool, seed: int) -> dict[str, Any]:
    """Write one phantom, scan it, and compare its findings with its truth."""
    from vesalius.cohorts import Cohort
    from vesalius.cohorts.phantom import write_phantom
    from vesalius.cohorts.scan import scan

    truth = write_phantom(folder / "phantom", patients=patients, seed=seed, defects=defects)
    scan(truth.data, folder / "cohort", labels=truth.labels)
    cohort = Cohort.open(folder / "cohort")
    rows = cohort.to_arrow(["key", "files", "mask_files"]).to_pylist()
    found = cohort.findings().to_dict("records")
    names_of_file: dict[str, set[str]] = defaultdict(set)
    files_of_key = {row["key"]: [*row["files"], *(row["mask_files"] or ())] for row in rows}
    everywhere = Counter(one["name"] for one in found)
    for one in found:
        keys = json.loads(one["evidence"] or "{}").get("keys", []) or [one["key"]]
        touched = [one["file"]] if one["file"] else []
        for key in keys:
            touched += files_of_key.get(key, [])
        for file in touched:
            names_of_file[file].add(one["name"])
    recall, missed = {}, []
    spoiled: set[str] = set()
    for defect in truth.defects:
        spoiled.update(defect.files)
        if defect.files:
            hit = any(defect.finding in names_of_file[file] for file in defect.files)
        else:  # a label without images, images without a label: no file to point at
            hit = everywhere[defect.finding] > 0
        recall[defect.finding] = recall.get(defect.finding, True) and hit
        if not hit:
            seen = sorted({name for file in defect.files for name in names_of_file[file]})
            missed.append({"finding": defect.finding, "note": defect.note, "instead": seen})
    alarms = Counter(
        one["name"]
        for one in found
        if one["name"] not in _EXPECTED_CLEAN
        and one["key"]
        and not spoiled & set(files_of_key.get(one["key"], []))
        and not any(
            spoiled & set(files_of_key.get(key, []))
            for key in json.loads(one["evidence"] or "{}").get("keys", [])
        )
    )
    return {
        "rows": len(rows),
        "defects": len(truth.defects),
        "found": sum(recall.values()),
        "recall": recall,
        "missed": missed,
        "false_alarms": dict(alarms),
        "false_alarms_per_row": sum(alarms.values()) / max(1, len(rows)),
        "findings": dict(everywhere.most_common()),
    }


def main() -> None:
    """Measure both phantoms and write `results/quality.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        result = {
            kind: measure(
                Path(name) / kind,
                patients=arguments.patients,
                defects=kind == "spoiled",
                seed=arguments.seed,
            )
            for kind in ("clean", "spoiled")
        }
    clean, spoiled = result["clean"], result["spoiled"]
    missed = len(spoiled["recall"]) - spoiled["found"]
    alarms = sum(clean["false_alarms"].values())
    path = record(
        "quality",
        {
            "title": "Quality findings",
            "what": "Planted defects that are found by name, and findings on data without defect.",
            "data": f"phantom of {arguments.patients} patients, {clean['rows']} clean images",
            "unit": "kinds of defect; findings",
            "baseline": "finding nothing: every defect missed, no false alarm",
            "remarks": [
                "Thresholds were tuned on this phantom and on public images: not an unseen test."
            ],
            "bars": [
                {"bar": "kinds of planted defect", "target": ">= 20",
                 "measured": len(spoiled["recall"]), "met": len(spoiled["recall"]) >= 20},
                {"bar": "planted kinds that are missed", "target": "0", "measured": missed,
                 "met": missed == 0},
                {"bar": "false alarms per clean image", "target": "stated",
                 "measured": alarms / max(1, clean["rows"]), "met": True},
            ],
            "rows": [
                {"defect": name, "found": hit} for name, hit in sorted(spoiled["recall"].items())
            ],
            **result,
            "seed": arguments.seed,
        },
    )  # fmt: skip
    print(f"clean: {clean['rows']} rows, false alarms {clean['false_alarms'] or 'none'}")
    print(f"spoiled: {spoiled['found']} of {len(spoiled['recall'])} kinds of defect found")
    for one in spoiled["missed"]:
        print(f"  missed {one['finding']} ({one['note']}); seen instead: {one['instead']}")
    print(f"  false alarms on sound series: {spoiled['false_alarms'] or 'none'}")
    print(path)


if __name__ == "__main__":
    main()
