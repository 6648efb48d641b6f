# SPDX-License-Identifier: Apache-2.0
"""What the page tells of the runs that answer here: their cards, and how they do their work."""

from __future__ import annotations

from pathlib import Path

from vesalius.serving.state import State
from vesalius.types import Json

_DAY = 86_400.0
_LONGEST_CARD = 1 << 18

_RUNS = """
SELECT json_extract(subject, '$.run_id') AS run, json_extract(subject, '$.task'),
    max(json_extract(subject, '$.run')), sum(state = 'done'), sum(state = 'refused'),
    sum(state = 'failed'), sum(state IN ('ready', 'leased')),
    sum(state = 'done' AND finished > ?), max(finished)
FROM jobs WHERE kind = 'predict' GROUP BY run ORDER BY max(id) DESC
"""


def models(state: State) -> list[Json]:
    """Return all runs that were asked for anything, the latest first."""
    now = state.clock.now()
    found = []
    rows = state.connection().execute(_RUNS, (now - _DAY,)).fetchall()
    for run, task, path, done, refused, failed, open_, today, last in rows:
        found.append(
            {
                "run": run,
                "task": task,
                "done": done,
                "refused": refused,
                "failed": failed,
                "waiting": open_,
                "done_in_a_day": today,
                "seconds_since_last": None if last is None else round(now - last, 1),
                "seconds_each": _seconds(state, run),
                "reviews": _reviews(state, run),
                "card": _card(Path(path)),
            }
        )
    return found


def _seconds(state: State, run: str) -> Json | None:
    """Return from complete study to result, of the last hundred results; None without any."""
    rows = state.connection().execute(
        "SELECT finished - created FROM jobs WHERE kind = 'predict' AND state = 'done' "
        "AND json_extract(subject, '$.run_id') = ? ORDER BY id DESC LIMIT 100",
        (run,),
    )
    times = sorted(row[0] for row in rows)
    if not times:
        return None
    return {
        "median": round(times[len(times) // 2], 2),
        "most": round(times[-1], 2),
        "of": len(times),
    }


def _reviews(state: State, run: str) -> dict[str, int]:
    """Return decision -> number of results whose latest review is that."""
    rows = state.connection().execute(
        "SELECT decision, count(*) FROM reviews r JOIN jobs j ON j.id = r.job "
        "WHERE json_extract(j.subject, '$.run_id') = ? AND r.number = (SELECT max(number) "
        "FROM reviews o WHERE o.job = r.job AND o.object = r.object) GROUP BY 1",
        (run,),
    )
    return dict(rows.fetchall())


def _card(run: Path) -> str:
    """Return the run's model card (Markdown), empty where its folder has none."""
    path = run / "card.md"
    if not path.is_file():
        return ""
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read(_LONGEST_CARD)
