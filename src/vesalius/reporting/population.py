# SPDX-License-Identifier: Apache-2.0
"""Who and what is in a cohort: counts by modality, scanner and site, labels per subset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vesalius.cohorts.schema import label_column
from vesalius.reporting.html import Html, pairs, table, tag
from vesalius.types import Json

if TYPE_CHECKING:
    import pandas as pd

    from vesalius.cohorts import Cohort

COLUMNS = ("key", "patient", "study", "series", "modality", "scanner", "site", "kind", "format")
_BY = ("modality", "scanner", "site", "kind", "format")
_MOST_VALUES = 20
_SUBSETS = ("train", "val", "test")


def frame_of(cohort: Cohort, target: str | None) -> pd.DataFrame:
    """Return the columns that a report counts, one row an image; `label` is the target's value."""
    column = label_column(target) if target else ""
    known = {label_column(name.removeprefix("label_")) for name in cohort.targets}
    chosen = [*COLUMNS, column] if column in known else list(COLUMNS)
    frame = cohort.to_pandas(columns=chosen)
    return frame.rename(columns={column: "label"}) if column else frame


def describe(cohort: Cohort, frame: pd.DataFrame, subsets: Mapping[str, str]) -> Json:
    """Return the cohort's counts; `subsets` maps keys to train, val or test."""
    simulated = int(frame["scanner"].fillna("").str.startswith("Simulated").sum())
    found: Json = {
        "images": len(frame),
        "patients": int(frame["patient"].replace("", None).nunique()),
        "simulated": simulated,
        "license": cohort.license or "not stated",
        "version": cohort.version,
        "by": {},
        "subsets": {},
    }
    for column in _BY:
        values = frame[column].fillna("").replace("", "unknown").astype(str)
        groups = frame.groupby(values, observed=True)["patient"].agg(["size", "nunique"])
        groups = groups.sort_values("size", ascending=False)
        found["by"][column] = [
            {"value": str(value), "images": int(size), "patients": int(patients)}
            for value, size, patients in groups.head(_MOST_VALUES).itertuples()
        ]
        if len(groups) > _MOST_VALUES:
            rest = groups.iloc[_MOST_VALUES:]
            found["by"][column].append(
                {
                    "value": f"{len(rest)} others",
                    "images": int(rest["size"].sum()),
                    "patients": None,
                }
            )
    if subsets:
        subset = frame["key"].map(subsets)
        for name in _SUBSETS:
            part = frame[subset == name]
            counts: dict[Any, Any] = {}
            if "label" in part:
                known = part["label"].dropna()
                if known.dtype.kind == "f" and (known == known.round()).all():
                    known = known.astype("int64")  # 1.0 and 1 are the same class
                counts = known.astype(str).value_counts().sort_index().to_dict()
            found["subsets"][name] = {
                "images": len(part),
                "patients": int(part["patient"].nunique()),
                "labels": {str(k): int(v) for k, v in counts.items()},
            }
    return found


def notice(population: Json) -> str:
    """Return the sentence that says so when images are simulated, else ``."""
    if not population["simulated"]:
        return ""
    share = "All" if population["simulated"] == population["images"] else "Some"
    return (
        f"{share} images of this cohort are simulated ({population['simulated']} of "
        f"{population['images']}). The numbers show that the software works; they say nothing "
        "about patients."
    )


def population_html(population: Json) -> list[Html]:
    """Return the cohort's facts and tables."""
    parts = [
        pairs(
            [
                ("images", f"{population['images']:,}"),
                ("patients", f"{population['patients']:,}"),
                ("data license", population["license"]),
                ("cohort version", population["version"]),
            ]
        )
    ]
    subsets = population["subsets"]
    if subsets:
        labels = sorted({label for part in subsets.values() for label in part["labels"]})[:30]
        rows: list[list[Any]] = []
        for name, part in subsets.items():
            total = sum(part["labels"].values())
            shares = [
                f"{part['labels'].get(label, 0)} ({part['labels'].get(label, 0) / total:.0%})"
                if total
                else "0"
                for label in labels
            ]
            rows.append([name, part["patients"], part["images"], *shares])
        head = ["subset", "patients", "images", *labels]
        parts.append(
            table(
                head,
                rows,
                numeric=range(1, len(head)),
                caption="Label balance in each subset" if labels else "Subsets",
            )
        )
    tables = []
    for column in _BY:
        entries = population["by"][column]
        if column in ("kind", "format") and len(entries) == 1:
            continue
        rows = [[e["value"].replace("|", " · "), e["images"], e["patients"]] for e in entries]
        tables.append(table([column, "images", "patients"], rows, numeric=(1, 2)))
    return [*parts, tag("div", tables, class_="charts")]
