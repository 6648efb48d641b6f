# SPDX-License-Identifier: Apache-2.0
"""The recipe behind MedMNIST's table (Yang et al. 2023), as a peer: what its minutes give.

ResNet-18 with a stem for small images, Adam 1e-3, batches of 128, 100 epochs, the rate divided by
ten at 50 and 75 %, no augmentation, the state of the best validation AUC.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from vesalius.networks import build

EPOCHS, BATCH, RATE = 100, 128, 1e-3
MILESTONES = (50, 75)


def measure(path: Path, seed: int) -> dict[str, Any]:
    """Train on the set of an official file; return scores on its test rows and what it took."""
    held = np.load(path)
    parts = {name: _part(held, name) for name in ("train", "val", "test")}
    images, truth = parts["train"]
    classes = int(truth.max()) + 1
    torch.manual_seed(seed)
    network = build(
        "resnet18", spatial_dims=2, in_channels=images.shape[1], out_channels=classes,
        stem="small", width=64,
    )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(MILESTONES), gamma=0.1)
    wall, cpu = time.perf_counter(), time.process_time()
    best, state = -np.inf, network.state_dict()
    for _ in range(EPOCHS):
        network.train()
        for rows in torch.split(torch.randperm(len(images)), BATCH):
            if len(rows) < 2:  # batch normalization needs two
                continue
            optimizer.zero_grad()
            functional.cross_entropy(network(images[rows]), truth[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
        score, _ = _scores(network, *parts["val"])
        if score > best:
            best, state = score, copy.deepcopy(network.state_dict())
    spent = {
        "wall minutes": (time.perf_counter() - wall) / 60,
        "processor minutes": (time.process_time() - cpu) / 60,
    }
    network.load_state_dict(state)
    area, accuracy = _scores(network, *parts["test"])
    return {"AUC": area, "accuracy": accuracy, **spent}


def _part(held: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    images = held[f"{name}_images"].astype(np.float32) / 127.5 - 1
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    truth = held[f"{name}_labels"].astype(np.int64).reshape(-1)
    return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(truth)


def _scores(
    network: torch.nn.Module, images: torch.Tensor, truth: torch.Tensor
) -> tuple[float, float]:
    """Return the mean one-versus-rest AUC (the positive class's of two) and the accuracy."""
    network.eval()
    with torch.inference_mode():
        table = torch.cat([network(part) for part in torch.split(images, 256)]).softmax(1).numpy()
    codes = truth.numpy()
    if table.shape[1] == 2:
        area = roc_auc_score(codes, table[:, 1])
    else:
        area = np.mean([roc_auc_score(codes == c, table[:, c]) for c in range(table.shape[1])])
    return float(area), float((table.argmax(1) == codes).mean())
