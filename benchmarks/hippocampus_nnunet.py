# SPDX-License-Identifier: Apache-2.0
"""nnU-Net 2.8.1 (`3d_fullres`, all cases in one fold) as a peer of `hippocampus`.

Plan, preprocessing, network, loss, augmentation and prediction are its own. Three things are not:
its polynomial decay follows the steps to zero at the end of the minutes, nothing is mirrored (left
is not right here), and on a processor it trains in bfloat16 where that is faster than its 32 bit.

The package comes with `pip install -e ".[dev,peers]"`. It needs torchvision, which fails to import
beside a PyTorch without CUDA, for its transformers alone: whoever names the trainer's class, in
place of letting nnU-Net search for it among them, never imports it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from copy import deepcopy
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprints,
    plan_experiments,
    preprocess,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)

from vesalius.files import write_json
from vesalius.training.budget import seconds_per_call
from vesalius.training.device import place

NUMBER, NAME = 1, "Dataset001_Hippocampus"
CONFIGURATION, PLANS = "3d_fullres", "nnUNetPlans"
LABELS = {"background": 0, "label 1": 1, "label 2": 2}
EPOCHS = 10  # after each of which it validates a batch and draws its curves
CLIP = 12  # of the gradient's norm, its own


class CutTrainer(nnUNetTrainerNoMirroring):
    """Its trainer without mirroring, for so many minutes in place of 1000 epochs."""

    minutes: float = 0.0
    steps: int | None = None
    bf16 = False
    taken = 0
    began = 0.0
    probe = ""

    def on_train_start(self) -> None:
        """Begin, then turn the minutes into epochs and iterations by a probe."""
        super().on_train_start()
        self.disable_checkpointing = True
        self.num_val_iterations_per_epoch = 1
        total = self.steps or 0
        if self.steps is None:
            fresh = deepcopy(self.network.state_dict())
            seconds = {"its own": self._probe()}
            if self.device.type == "cpu":  # on a GPU its own is half precision
                self.bf16 = True
                seconds["bf16"] = self._probe()
                self.bf16 = seconds["bf16"] < seconds["its own"]
            self.network.load_state_dict(fresh)
            self.probe = ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
            total = int(60 * self.minutes / min(seconds.values()))
        self.num_epochs = max(1, min(EPOCHS, total // 2))
        # The one iteration of validation is counted as one of training.
        self.num_iterations_per_epoch = max(1, total // self.num_epochs - 1)
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        self.taken = 0
        self.began = time.perf_counter()

    def train_step(self, batch: Any) -> Any:
        """Take one step; in bfloat16, as its own does in half precision on a GPU."""
        self.lr_scheduler.step(self.taken / self.num_iterations_per_epoch)
        self.taken += 1
        if not self.bf16:
            return super().train_step(batch)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            found = self.network(batch["data"])
        loss = self.loss([one.float() for one in found], batch["target"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.optimizer.step()
        return {"loss": loss.detach().numpy()}

    def _probe(self) -> float:
        self.network.train()
        return seconds_per_call(lambda _: self.train_step(next(self.dataloader_train)))


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
        train: key -> image and mask (`.nii.gz`).
        test: key -> image.
        out: folder that receives `<key>.nii.gz`; what it prepares lies two floors above, in
            `nnunet`, for every seed.
        minutes: of training alone; preparation, the probe and the prediction come on top.
        seed: of the weights; its loader draws from the system's noise.
        steps: about so many iterations instead.
    """
    torch.manual_seed(seed)
    prepared = prepare(train, out.parents[1] / "nnunet")
    plans = {**load_json(str(prepared / f"{PLANS}.json")), "continue_training": False}
    dataset = load_json(str(prepared / "dataset.json"))
    trainer = CutTrainer(plans, CONFIGURATION, "all", dataset, place())
    trainer.minutes, trainer.steps = minutes, steps
    trainer.run_training()
    spent = time.perf_counter() - trainer.began
    trainer.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(use_mirroring=False, device=trainer.device, allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network, trainer.plans_manager, trainer.configuration_manager,
        [trainer.network.state_dict()], dataset, "CutTrainer", None,
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    predictor.predict_from_files_sequential(
        [[str(path)] for path in test.values()], [str(out / key) for key in test]
    )
    count = trainer.num_epochs * trainer.num_iterations_per_epoch
    return {
        "steps": count,
        "seconds a step": spent / count,
        "training minutes": spent / 60,
        "precision": "bf16" if trainer.bf16 else "its own",
        "made with": f"nnU-Net {metadata.version('nnunetv2')}",
        "probe, seconds a step": trainer.probe,
    }


def prepare(train: Mapping[str, tuple[Path, Path]], work: Path) -> Path:
    """Lay the training images out as it wants them, let it plan and preprocess; once.

    Returns the folder of its plans.
    """
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(work.absolute() / name)
    prepared, done = work / "preprocessed" / NAME, work / "prepared"
    if done.exists():
        return prepared
    raw = work / "raw" / NAME
    for key, (image, mask) in train.items():
        for link, path in (
            (raw / "imagesTr" / f"{key}_0000.nii.gz", image),
            (raw / "labelsTr" / f"{key}.nii.gz", mask),
        ):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(path.absolute())
    described = {
        "channel_names": {"0": "MRI"},
        "labels": LABELS,
        "numTraining": len(train),
        "file_ending": ".nii.gz",
    }
    write_json(raw / "dataset.json", described)
    cores = len(os.sched_getaffinity(0))
    extract_fingerprints([NUMBER], num_processes=cores)
    plan_experiments([NUMBER])
    preprocess([NUMBER], configurations=(CONFIGURATION,), num_processes=(cores,))
    done.touch()
    return prepared
