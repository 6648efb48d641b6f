# SPDX-License-Identifier: Apache-2.0
"""A study with a segmentation, and a browser's way to it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

sys.path.insert(0, str(Path(__file__).parent))
from hospital import Browser, Here, answer_all, boxes, send_series

from vesalius.serving import keys
from vesalius.serving.audit import Audit
from vesalius.serving.health import Vitals
from vesalius.serving.page import desk as desks
from vesalius.serving.runs import ServedRun
from vesalius.serving.web import application


@pytest.fixture
def run(tmp_path):
    """Return `run(task)`: a run folder without weights."""

    def made(task="segment"):
        folder = tmp_path / f"run-{task}"
        folder.mkdir()
        plan = {"id": f"{task}0123456789", "task": task, "measured": {"finished": True},
                "fingerprint": {"modalities": ["CT"]}}  # fmt: skip
        (folder / "plan.json").write_text(json.dumps(plan))
        (folder / "card.md").write_text(f"# Model card: {task}\n\n- Not for diagnosis.\n")
        return ServedRun.load(folder)

    return made


@pytest.fixture
def audit(state):
    return Audit(state)


@pytest.fixture
def desk(state, audit, monkeypatch):
    monkeypatch.setattr(desks, "Aside", Here)
    return desks.Desk(state, audit)


@pytest.fixture
def app(state, intake, audit, desk):
    return application(Vitals(state, intake), audit, desk=desk)


@pytest.fixture
def browser(state, app):
    """Return `browser(*roles)`, by default with the role review."""

    def made(*roles):
        key = keys.create(state, name="Dr. Roe", roles=roles or ("read", "review"))
        return Browser(app, key)

    return made


@pytest.fixture
def segmented(state, send, run):
    """Send a study, segment it, and return (job, SOP Instance UID of the label map)."""
    send_series(send)
    answer_all(state, run(), boxes)
    row = state.connection().execute("SELECT id, answer FROM jobs").fetchone()
    return row[0], json.loads(row[1])["objects"][0]
