# SPDX-License-Identifier: Apache-2.0
"""The short MONAI script that a careful engineer writes first, as a peer of `hippocampus`.

A DynUNet of four levels (24 to 192 filters), patches of 40 x 56 x 40, batches of 4, bfloat16,
AdamW under one cycle, intensities clipped at two percentiles and standardized, Dice and cross
entropy, hardly any augmentation.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from torch import Tensor

from vesalius.training.budget import seconds_per_call
from vesalius.training.device import best_precision, place

PATCH, BATCH, FILTERS = (40, 56, 40), 4, (24, 48, 96, 192)
RATE, DECAY = 2e-3, 1e-4
PERCENTILES = (0.5, 99.5)
CLASSES = 3  # background and two structures


def measure(
    train: Mapping[str, tuple[Path, Path]],
    test: Mapping[str, Path],
    out: Path,
    *,
    minutes: float,
    seed: int,
    steps: int | None = None,
) -> dict[str, Any]:
    """Train for so many minutes, write a label map of each test image, return what it took.

    Args:
        train: key -> image and mask.
        test: key -> image.
        out: folder that receives `<key>.nii.gz`.
        minutes: of training alone; reading, the probe and the prediction come on top.
        seed: of weights, order and augmentation.
        steps: exact number of steps instead.
    """
    from monai.data import set_track_meta
    from monai.losses import DiceCELoss
    from monai.transforms import (
        Compose,
        RandScaleIntensityd,
        RandShiftIntensityd,
        RandSpatialCropd,
        SpatialPadd,
    )

    set_track_meta(False)  # plain tensors
    device, half = place(), best_precision() == "bf16-mixed"
    cases = [
        {"image": image(path), "label": torch.from_numpy(_voxels(mask))[None].long()}
        for path, mask in train.values()
    ]
    cut = Compose(
        [
            SpatialPadd(("image", "label"), PATCH),
            RandSpatialCropd(("image", "label"), PATCH, random_size=False),
            RandScaleIntensityd("image", 0.1, prob=0.5),
            RandShiftIntensityd("image", 0.1, prob=0.5),
        ]
    ).set_random_state(seed)
    rng = np.random.default_rng(seed)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)

    def step(network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        drawn = [cut(cases[number]) for number in rng.choice(len(cases), BATCH, replace=False)]
        x, y = (torch.stack([one[name] for one in drawn]).to(device) for name in ("image", "label"))
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits = network(x)
        optimizer.zero_grad()
        loss_of(logits.float(), y).backward()
        optimizer.step()

    count = steps or 0
    if steps is None:
        spoilt = _begin(seed, device)
        count = max(1, int(60 * minutes / seconds_per_call(lambda _: step(*spoilt))))
    network, optimizer = _begin(seed, device)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=count)
    network.train()
    started = time.perf_counter()
    for _ in range(count):
        step(network, optimizer)
        schedule.step()
    spent = time.perf_counter() - started
    network.eval()
    out.mkdir(parents=True, exist_ok=True)
    for key, path in test.items():
        found = predict(network, image(path), device, half)
        affine = nibabel.load(path).affine
        nibabel.save(nibabel.Nifti1Image(found, affine), out / f"{key}.nii.gz")
    return {
        "steps": count,
        "seconds a step": spent / count,
        "training minutes": spent / 60,
        "precision": "bf16" if half else "fp32",
        "made with": f"MONAI {metadata.version('monai')}",
    }


def predict(
    network: torch.nn.Module, values: Tensor, device: torch.device, half: bool
) -> np.ndarray[Any, Any]:
    """Return the label map `(i, j, k)` of an image `(1, i, j, k)`, by sliding windows."""
    from monai.inferers import sliding_window_inference

    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
        logits = sliding_window_inference(
            values[None].to(device), PATCH, BATCH, network, overlap=0.5, mode="gaussian"
        )
    return np.asarray(logits.argmax(1)[0].to("cpu", torch.uint8))


def image(path: Path) -> Tensor:
    """Return the image `(1, i, j, k)`, clipped at its percentiles, mean 0 and deviation 1."""
    voxels = _voxels(path).astype(np.float64)
    voxels = voxels.clip(*np.percentile(voxels, PERCENTILES))
    return torch.from_numpy((voxels - voxels.mean()) / voxels.std())[None].float()


def _begin(seed: int, device: torch.device) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    from monai.networks.nets import DynUNet

    torch.manual_seed(seed)
    network = DynUNet(
        spatial_dims=3, in_channels=1, out_channels=CLASSES, kernel_size=[3] * len(FILTERS),
        strides=[1, 2, 2, 2], upsample_kernel_size=[2, 2, 2], filters=FILTERS,
    ).to(device)  # fmt: skip
    return network, torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)


def _voxels(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(nibabel.load(path).dataobj)
