# SPDX-License-Identifier: Apache-2.0
"""The report of a run: one HTML file that holds everything, and the same as JSON beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.files import write_json, write_text
from vesalius.reporting import figures
from vesalius.reporting.cases import cases_html
from vesalius.reporting.content import RunContent, flat, gather
from vesalius.reporting.detections import detection_charts, images_html
from vesalius.reporting.findings import findings_html
from vesalius.reporting.html import Html, counted, image, page, pairs, section, tag
from vesalius.reporting.population import population_html
from vesalius.reporting.scores import group_table, score_table, tiles
from vesalius.types import Json, PathLike

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort


def write_report(run: PathLike, cohort: Cohort, *, split: str = "test") -> Path:
    """Write `report.html` and `report.json` into a run folder and return the page's path.

    Args:
        run: folder with `plan.json`, `metrics.json`, `predictions.parquet`, `log.jsonl`.
        cohort: the cohort that was scored; its images are shown as small pictures.
        split: which subset's scores to report, `test` or `val`.

    The page makes no request and runs no script; rows appear under their pseudonymous keys. It
    shows images: treat it as patient data. Raises `RunError` and `UsageError` as `gather` does.
    """
    folder = Path(run)
    content = gather(folder, cohort, split)
    sections = [
        _scores(content),
        _worst(content, cohort, folder),
        _groups(content.json),
        _cohort(content.json),
        ("findings", "Findings", _findings(content.json, cohort)),
        _split(content.json),
        _training(content),
        _origin(content.json),
    ]
    found = [entry for entry in sections if entry is not None]
    html = page(
        content.json["title"],
        header=_header(content.json),
        sections=found,
        footer="Made by Vesalius. Shows patient images: keep it where the data may be kept. "
        "Not a medical device; not for diagnosis.",
    )
    write_json(folder / "report.json", content.json)
    return write_text(folder / "report.html", html)


def chart(uri: str | None, alt: str, caption: str = "") -> Html | None:
    """Return a figure, or None where there is nothing to draw."""
    if uri is None:
        return None
    words = tag("figcaption", caption) if caption else None
    return tag("figure", image(uri, alt), words, class_="chart")


def _header(content: Json) -> list[Any]:
    return [
        tag("p", f"Vesalius run {content['hashes']['plan']}", class_="eyebrow"),
        tag("h1", content["title"]),
        tag("p", content["notice"], class_="notice") if content["notice"] else None,
        tag("p", content["headline"]["sentence"], class_="lead"),
        tiles(content["task"], content["metrics"]["scores"]),
    ]


def _sets(metrics: Json) -> list[Html]:
    """Return what label sets and refusals came to."""
    words = []
    if held := metrics.get("label_sets"):
        words.append(
            f"Label sets held the truth in {held['coverage']:.1%} "
            f"[{held['low']:.1%}, {held['high']:.1%}] of {held['n']} cases (promised "
            f"{held['promised']:.0%}; expected here {held['expected'][0]:.1%} to "
            f"{held['expected'][1]:.1%}), with {held['mean_size']:.2f} labels on average."
        )
    if point := metrics.get("operating_point"):
        parts = [
            f"{name} {p['value']:.1%} [{p['low']:.1%}, {p['high']:.1%}] of {p['n']}"
            for name, p in point.items()
            if p["value"] is not None
        ]
        words.append(f"At the run's operating point: {', '.join(parts)} (exact intervals).")
    if refused := metrics.get("n_abstained"):
        words.append(f"In {refused} cases the model abstained: they are unlike its training cases.")
    return [tag("p", " ".join(words))] if words else []


def _scores(content: RunContent) -> tuple[str, str, Html]:
    metrics, task = content.json["metrics"], content.json["task"]
    charts: list[Html | None] = []
    if task == "classify":
        areas = {s["label"]: s["value"] for s in metrics["scores"] if s["name"] == "auc"}
        labels = content.json["labels"]
        roc = metrics.get("roc", {})
        if len(labels) == 2 and metrics.get("confusion"):  # binary: the second is positive
            roc = {name: curve for name, curve in roc.items() if name == labels[1]}
            areas = {labels[1]: areas.get("")}
        if metrics.get("confusion"):
            alt = "confusion matrix: counts of truth against prediction"
            charts.append(chart(figures.confusion_matrix(metrics["confusion"]), alt, "Confusion"))
        alt = "ROC curve: sensitivity over false positive rate"
        charts.append(chart(figures.roc_curves(roc, areas), alt, "ROC, one class versus the rest"))
        bins = metrics.get("calibration", {}).get("bins", [])
        alt = "calibration: share correct over confidence"
        charts.append(chart(figures.calibration_plot(bins), alt, "Calibration"))
        alt = "decision curve: net benefit over the threshold, beside treating all and none"
        curves = metrics.get("decision_curve", {})
        charts.append(chart(figures.decision_curves(curves), alt, "Decision curve"))
    elif task == "retrieve":
        charts += [_beside(metrics["baselines"])] if metrics["baselines"] else []
    elif task == "detect":
        found = detection_charts(metrics, content.predictions, content.json["labels"])
        charts += [chart(*one) for one in found]
    else:
        frame = content.predictions
        for measure, words in (("dice", "Dice (0 to 1)"), ("hd95", "Hausdorff 95 (mm)")):
            values = {
                name: frame[f"{measure}_{name}"].dropna().to_numpy()
                for name in content.json["labels"]
                if f"{measure}_{name}" in frame and frame[f"{measure}_{name}"].notna().any()
            }
            uri = figures.score_distribution(values, unit_label=words)
            caption = f"{words}: one dot a case; the lines are median and quartiles"
            charts.append(chart(uri, f"distribution of {words} over cases", caption))
    explained = (
        "Intervals come from a bootstrap that draws patients, not images. The trivial answer is "
        "what a model that looks at no image would score on the same cases. Failed cases count "
        "as the worst answer."
    )
    body = section(
        "scores",
        "Scores",
        tag("p", explained, class_="soft"),
        score_table(metrics["scores"]),
        *_sets(metrics),
        tag("div", charts, class_="charts"),
    )
    return "scores", "Scores", body


def _beside(baselines: list[Json]) -> Html:
    """Return the table of what a search is compared with."""
    scores = [
        {**score, "label": f"{one['label']}: {one['name']}"}
        for one in baselines
        for score in one["scores"]
        if score["name"].startswith(("precision", "map"))
    ]
    return score_table(scores, caption="The same searches by other means")


def _worst(content: RunContent, cohort: Cohort, run: Path) -> tuple[str, str, Html] | None:
    task = content.json["task"]
    if task == "retrieve":
        return None
    if task == "detect":
        parts = images_html(content.json["cases"], cohort, content.json["labels"])
    else:
        parts = cases_html(task, content.json["cases"], cohort, content.frame, run)
    if content.json["left_out"]:
        lines = [tag("li", line) for line in content.json["left_out"]]
        parts += [tag("h3", "Images that could not be scored"), tag("ul", lines)]
    if suspects := content.json["metrics"].get("suspect_masks"):
        words = (
            "The network was sure of its answer here, and the mask says otherwise. Look at the "
            "mask first: beside its structure, forgotten, of another slice? Or is it an anatomy "
            "that training did not show?"
        )
        lines = [
            tag("li", f"{one['key']}, {one['label']}: Dice {one['dice']:.2f}, expected "
                f"{one['predicted']:.2f}")
            for one in suspects
        ]  # fmt: skip
        parts += [tag("h3", "Masks that deserve a look"), tag("p", words), tag("ul", lines)]
    return "cases", "Worst cases", section("cases", "Worst cases first", *parts)


def _groups(content: Json) -> tuple[str, str, Html] | None:
    by = content["metrics"].get("by", [])
    columns = list(dict.fromkeys(entry["column"] for entry in by))
    if not columns:
        return None
    parts = [[tag("h3", f"By {name}"), group_table(by, name)] for name in columns]
    return "groups", "Scanners", section("groups", "Per scanner and modality", *parts)


def _cohort(content: Json) -> tuple[str, str, Html]:
    parts = population_html(content["cohort"])
    return "cohort", "Cohort", section("cohort", "Cohort", *parts)


def _findings(content: Json, cohort: Cohort) -> Html:
    count = sum(entry["count"] for entry in content["findings"])
    intro = tag("p", f"{counted(count, 'finding')} of {counted(len(content['findings']), 'kind')}.")
    return section(
        "findings",
        "Findings in the data",
        intro if count else None,
        *findings_html(content["findings"], cohort),
    )


def _split(content: Json) -> tuple[str, str, Html] | None:
    if not content["split_audit"] and not content["split_settings"]:
        return None
    body = section(
        "split",
        "Split",
        tag("ul", [tag("li", line) for line in content["split_audit"]]),
        pairs(flat(content["split_settings"])),
    )
    return "split", "Split", body


def _training(content: RunContent) -> tuple[str, str, Html]:
    parts: list[Html] = []
    for name, facts in content.json["training"].items():
        rows = [
            ("steps done", facts["steps"]),
            ("steps planned", facts["steps planned"]),
            ("time of training", None if facts["seconds"] is None else _time(facts["seconds"])),
            ("finished", "yes" if facts["finished"] else "no"),
        ]
        log = content.logs[name]
        curves = [
            chart(figures.loss_curve(log), "training loss over steps", "Training loss"),
            chart(
                figures.validation_curve(log),
                "validation scores over training steps",
                "Scores on the validation subset, which choose the weights that are kept",
            ),
        ]
        parts += [tag("h3", name)] if name else []
        parts.append(tag("div", curves, class_="charts"))
        parts.append(pairs([(n, v) for n, v in rows if v is not None]))
    body = section("training", "Training", *parts, pairs(flat(content.json["measured"])))
    return "training", "Training", body


def _origin(content: Json) -> tuple[str, str, Html]:
    names = ["report.html", "report.json", "metrics.json", "predictions.parquet"]
    body = section(
        "origin",
        "How this was made",
        tag("h3", "Command"),
        tag("pre", content["command"]),
        tag("h3", "Hashes"),
        pairs([(n, tag("code", v)) for n, v in content["hashes"].items() if v is not None]),
        tag("h3", "Versions"),
        pairs(flat(content["versions"])),
        tag(
            "details",
            tag("summary", "Every decision of the plan"),
            pairs(flat(content["decisions"])),
        ),
        tag(
            "p",
            f"The same numbers as JSON: {', '.join(names[1:])} beside this page.",
            class_="soft",
        ),
    )
    return "origin", "Origin", body


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
