# SPDX-License-Identifier: Apache-2.0
"""Prepared images and their frozen features, once for all trials of a search that need the same.

A run keeps both in its cache while it trains; here they lie beside the runs, named by what they
depend on, and a run's cache links to them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.tuning.lock import alone

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.tasks.cases import Case
    from vesalius.tasks.run import Run


def link_views(shared: Path, run: Run, cohort: Cohort, parts: dict[str, list[Case]]) -> None:
    """Prepare what a run needs, or find it prepared, and link it into the run's cache.

    Args:
        shared: folder of what the search's trials share.
        run: that has not begun.
        cohort: of the plan.
        parts: subset -> cases.
    """
    from vesalius.tasks.classify.candidates import embeddings_path
    from vesalius.tasks.classify.clock import Clock
    from vesalius.tasks.classify.embeddings import embed_store
    from vesalius.tasks.classify.store import prepare
    from vesalius.tasks.frozen import FrozenEncoder
    from vesalius.tasks.normalizing import fitted_normalizer

    decisions = run.decisions
    normalizer = fitted_normalizer(run, cohort, parts["train"])
    everything = [case for part in parts.values() for case in part]
    place = shared / _name([decisions["input"], normalizer.to_json(), _keys(everything)])
    with alone(place):
        store = prepare(place, cohort, everything, decisions, normalizer, Clock(0.0, None), None)
        for number, spec in enumerate(decisions["frozen"]):
            held = {name: value for name, value in spec.items() if name != "heads"}
            path = place / f"{_name(held)}.npy"
            if not path.exists():
                embed_store(path, FrozenEncoder(spec, run.path), store, None)
            _link(path, embeddings_path(run, number))
    for name in ("views.f16", "views.json"):
        _link(place / name, run.path / "cache" / name)


def _keys(cases: Sequence[Case]) -> list[str]:
    return sorted(row["key"] for case in cases for row in case.rows)


def _name(value: object) -> str:
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _link(source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    if not to.exists():
        os.link(source, to)


def shared_bytes(shared: Path) -> int:
    """Return what is shared takes on disk."""
    return sum(path.stat().st_size for path in shared.rglob("*") if path.is_file())
