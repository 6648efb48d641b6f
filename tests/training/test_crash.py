# SPDX-License-Identifier: Apache-2.0
"""`kill -9` in the middle of training, twice, then the same command: the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from vesalius.training.checkpoint import load_tensors
from vesalius.training.log import read_log
from vesalius.training.loop import BEST, LOG

CHILD = """
import sys, time
from pathlib import Path
import torch
from torch import nn
from vesalius.networks import build
from vesalius.training import device
from vesalius.training.loop import Settings, fit
from vesalius.training.order import step_random

folder, pause = Path(sys.argv[1]), float(sys.argv[2])
torch.manual_seed(0)
model = build("unet", spatial_dims=2, in_channels=1, out_channels=2, widths=(4, 8))

def step_loss(net, step):
    time.sleep(pause)
    x = torch.tensor(step_random(0, step).normal(size=(4, 1, 16, 16)), dtype=torch.float32)
    return nn.functional.cross_entropy(net(x), (x[:, 0] > 0).long())

def validate(net):
    x = torch.tensor(step_random(1, 0).normal(size=(4, 1, 16, 16)), dtype=torch.float32)
    return {"score": -float(nn.functional.cross_entropy(net(x), (x[:, 0] > 0).long()))}

settings = Settings(steps=60, lr=0.01, warmup=3, weight_decay=0.01, clip_norm=1.0,
                    validate_every=9, checkpoint_seconds=0.0)
fit(model, step_loss=step_loss, validate=validate, settings=settings, folder=folder,
    fabric=device.start())
"""


def start(folder: Path, pause: float) -> subprocess.Popen[bytes]:
    source = str(Path(__file__).parents[2] / "src")
    paths = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", CHILD, str(folder), str(pause)], env=environment)


def test_two_kills_change_nothing(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(whole, 0.0).wait(timeout=120) == 0
    for steps in (10, 35):
        child = start(broken, 0.05)
        deadline = time.monotonic() + 60
        while len(read_log(broken / LOG)) < steps and time.monotonic() < deadline:
            time.sleep(0.02)
        assert child.poll() is None
        child.send_signal(signal.SIGKILL)
        assert child.wait(timeout=10) == -signal.SIGKILL
    assert start(broken, 0.0).wait(timeout=120) == 0
    expected, record = load_tensors(whole / BEST)
    found, again = load_tensors(broken / BEST)
    assert record == again
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)
    steps = [
        [e["step"] for e in read_log(f / LOG) if e["event"] == "step"] for f in (whole, broken)
    ]
    assert steps[0] == steps[1] == list(range(1, 61))
