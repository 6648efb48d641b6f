# SPDX-License-Identifier: Apache-2.0
"""From training to finding: a run that learned words, its archive, and the run moved away."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported

import pytest

from vesalius.errors import RunError
from vesalius.flows.find import find
from vesalius.flows.index import index
from vesalius.flows.train import train

sys.path.insert(0, str(Path(__file__).parent))
from clinic import write_clinic


def test_words_find_images_through_a_run_that_learned_them(tmp_path: Path) -> None:
    cohort = write_clinic(tmp_path)
    train("retrieve", cohort, pairs="captions", steps=4, out=tmp_path / "run")
    out = tmp_path / "archive.index"
    done = index(cohort, out=out, encoder=str(tmp_path / "run"), where="modality = 'US'")
    assert done.entries == 18
    answer = find(out, words="ring enhancing lesion", k=9)
    assert answer.scored_by.startswith("reciprocal ranks of BM25 of the words and cosine of the")
    assert [case.facts["grade"] for case in answer.cases[:3]] == ["ring"] * 3
    assert all(case.meaning is not None for case in answer.cases)
    unworded = [case for case in answer.cases if case.bm25 is None]
    assert unworded  # found by the meaning alone
    assert str(tmp_path) not in str(answer.to_json())
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="say with --encoder where it is"):
        find(out, words="ring")
    again = find(out, words="ring enhancing lesion", k=9, encoder=str(tmp_path / "elsewhere"))
    assert [case.case for case in again.cases] == [case.case for case in answer.cases]
    with pytest.raises(RunError, match="another encoder"):
        find(out, words="ring", image=tmp_path / "data" / "case00_0.png", encoder="frozen")
