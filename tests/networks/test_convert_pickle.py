# SPDX-License-Identifier: Apache-2.0
"""Pickles of weights: real ones are converted, hostile ones are refused and never run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from vesalius.errors import BudgetError, RunError, UsageError
from vesalius.networks import build
from vesalius.networks import convert_pickle as module
from vesalius.networks.convert_pickle import convert_pickle
from vesalius.networks.external import load_encoder
from vesalius.networks.pickle_worker import Refusal, state_dict, tensors_only


class Hostile:
    """What a hostile file holds: its unpickling runs a command."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def test_a_real_checkpoint_becomes_an_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build("cnn", spatial_dims=2, in_channels=1, out_channels=2, width=8)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.randn(4, 1, 32, 32)).sum().backward()
    optimizer.step()
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    checkpoint = {"epoch": 3, "state_dict": state, "optimizer": optimizer.state_dict()}
    torch.save(checkpoint, tmp_path / "net.pth")
    target = convert_pickle(tmp_path / "net.pth", tmp_path / "net.safetensors", prefix="module.")
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(load_encoder(target, name="cnn")(x), network.eval()(x))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pth", "net.safetensors"]
    with pytest.raises(UsageError, match="exists already"):
        convert_pickle(tmp_path / "net.pth", target)


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    trace, source = tmp_path / "trace", tmp_path / "evil.pt"
    torch.save({"weight": torch.zeros(2), "evil": Hostile(trace)}, source)
    with pytest.raises(RunError, match=r"it holds posix\.system, which is no tensor"):
        convert_pickle(source, tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.pt"]
    torch.load(source, weights_only=False)
    assert trace.exists()  # the file is as hostile as it claims


@pytest.mark.parametrize("protocol", [0, 2])
def test_a_pickle_that_torch_did_not_write_is_not_run_either(protocol, tmp_path) -> None:
    trace, source = tmp_path / "trace", tmp_path / "evil.bin"
    source.write_bytes(pickle.dumps(Hostile(trace), protocol=protocol))
    with pytest.raises(Refusal):
        tensors_only(source)
    assert not trace.exists()
    pickle.loads(source.read_bytes())
    assert trace.exists()


def test_a_small_file_that_grows_meets_the_bound(tmp_path: Path) -> None:
    huge = torch.zeros(1).expand(1 << 18, 1 << 14)  # 16 GiB of one stored number
    torch.save({"weight": huge}, tmp_path / "bomb.pt")
    assert (tmp_path / "bomb.pt").stat().st_size < 10_000
    with pytest.raises(BudgetError, match="needs more than 256 MiB"):
        convert_pickle(tmp_path / "bomb.pt", tmp_path / "out.safetensors")


def test_reading_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "net.pt")
    monkeypatch.setattr(module, "_START", 0.0)
    with pytest.raises(BudgetError, match=r"took more than 0\.01 s"):
        convert_pickle(tmp_path / "net.pt", tmp_path / "out.safetensors", seconds=0.01)


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(b"garbage" * 10)
    with pytest.raises(Refusal, match="no file of PyTorch tensors"):
        tensors_only(tmp_path / "net.pt")
    with pytest.raises(RunError, match="no such file"):
        convert_pickle(tmp_path / "absent.pt", tmp_path / "out.safetensors")
    with pytest.raises(UsageError, match=r"must be a .safetensors file, got 'out.pt'"):
        convert_pickle(tmp_path / "net.pt", tmp_path / "out.pt")


def test_one_state_dict_is_found_or_asked_for() -> None:
    w, v = torch.ones(2), torch.zeros(3)
    assert list(state_dict({"a": w, "epoch": 1}, None, "")) == ["a"]
    found = state_dict({"epoch": 1, "model": {"a": w, "n": 2}}, None, "")
    assert list(found) == ["a"]
    torch.testing.assert_close(found["a"], w)
    two = {"model": {"a": w}, "ema": {"a": v}}
    torch.testing.assert_close(state_dict(two, "ema", "")["a"], v)
    with pytest.raises(Refusal, match=r"2 state dicts \(model, ema\): name one by entry"):
        state_dict(two, None, "")
    with pytest.raises(Refusal, match="has no dict 'best', only model, ema"):
        state_dict(two, "best", "")
    with pytest.raises(Refusal, match="holds no tensors, only epoch"):
        state_dict({"epoch": 1}, None, "")
    with pytest.raises(Refusal, match=r"starts with 'module\.'; there are a"):
        state_dict({"a": w}, None, "module.")
    with pytest.raises(Refusal, match="holds a list"):
        state_dict([w], None, "")


def test_shared_memory_is_separated() -> None:
    base = torch.arange(6.0).reshape(2, 3)
    found = state_dict({"a": base, "b": base.T, "c": base}, None, "")
    assert load(save(found)).keys() == {"a", "b", "c"}  # it refuses shared memory
    torch.testing.assert_close(found["b"], base.T)
    found["a"].add_(1)
    assert base[0, 0] == found["c"][0, 0] == 0
