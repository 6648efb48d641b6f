# SPDX-License-Identifier: Apache-2.0
"""Device and precision, through Lightning Fabric."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Precision = Literal["32-true", "bf16-mixed"]


def best_precision() -> Precision:
    """Return bfloat16 autocast where the device computes it natively, else 32 bit."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    return "bf16-mixed" if torch.cpu.get_capabilities().get("avx512_bf16") else "32-true"


def place() -> torch.device:
    """Return the best single device of this machine, for inference, with bounded threads."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def start(precision: Precision = "32-true") -> Fabric:
    """Return a Fabric on the best single device of this machine, with bounded threads."""
    from lightning_fabric import Fabric

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    return Fabric(accelerator=place().type, devices=1, precision=precision)
