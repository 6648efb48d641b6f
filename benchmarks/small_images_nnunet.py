# SPDX-License-Identifier: Apache-2.0
"""nnU-Net 2.8.1's predictor and 2D plan as a peer of `small_images`.

Its planner decides the network from the images; its predictor then runs its own module with the
weights of the network that Vesalius trained, mirroring off, on the processor, where it computes in
32 bits. Beside a PyTorch without CUDA its command cannot start (it imports torchvision), so its
predictor's method is called, with the workers that the command would ask for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprints,
    plan_experiments,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from PIL import Image
from torch import Tensor, nn

from vesalius.files import write_json

NUMBER, NAME = 2, "Dataset002_Heart"
CONFIGURATION, PLANS = "2d", "nnUNetPlans"
# way -> processes that read and that write: its command's, its method's default, none
WAYS = {"nnunet-command": 3, "nnunet-method": 8, "nnunet-sequential": 0, "nnunet-arrays": 0}


def planned(pairs: Mapping[str, tuple[Path, Path]], work: Path) -> dict[str, Any]:
    """Return the 2D plan that it makes of training images and masks, and keep it below `work`.

    Args:
        pairs: key -> image and mask.
        work: folder.
    """
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(work.absolute() / name)
    prepared = work / "preprocessed" / NAME
    if not (prepared / f"{PLANS}.json").exists():
        raw = work / "raw" / NAME
        for key, (image, mask) in pairs.items():
            for folder, name, values in (
                ("imagesTr", f"{key}_0000.png", np.array(Image.open(image))),
                ("labelsTr", f"{key}.png", (np.array(Image.open(mask)) > 0).astype(np.uint8)),
            ):
                (raw / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(raw / folder / name)
        described = {
            "channel_names": {"0": "MRI"},
            "labels": {"background": 0, "left ventricle": 1},
            "numTraining": len(pairs),
            "file_ending": ".png",
        }
        write_json(raw / "dataset.json", described)
        extract_fingerprints([NUMBER], num_processes=len(os.sched_getaffinity(0)))
        plan_experiments([NUMBER])
    plans: dict[str, Any] = load_json(str(prepared / f"{PLANS}.json"))
    return plans


def own_network(plans: dict[str, Any], trained: nn.Module) -> nn.Module:
    """Return its module with the weights of ours, which has the same layers in the same order.

    Its convolutions have a bias more than ours, of no effect before an instance normalization: 0.
    """
    made = plans["configurations"][CONFIGURATION]["architecture"]
    with torch.no_grad():
        network = get_network_from_plans(
            made["network_class_name"], made["arch_kwargs"], made["_kw_requires_import"], 1, 2,
            deep_supervision=False,
        ).eval()  # fmt: skip
        for part, own in (
            (network.encoder, trained.down),
            (network.decoder.transpconvs, trained.rise),
            (network.decoder.stages, trained.up),
            (network.decoder.seg_layers[-1:], trained.head),
        ):
            for one, other in zip(_layers(part), _layers(own), strict=True):
                one.weight.copy_(other.weight)
                if other.bias is not None:
                    one.bias.copy_(other.bias)
                elif one.bias is not None:
                    one.bias.zero_()
        example = torch.randn(1, 1, 256, 256)
        gap = float((network(example) - _plain(trained, example)).abs().max())
    if gap > 1e-3:
        raise SystemExit(f"the two networks differ by {gap}")
    return network


def measure(
    way: str,
    plans: dict[str, Any],
    network: nn.Module,
    files: Sequence[Path],
    out: Path,
    *,
    work: Path,
) -> float:
    """Predict files in one of the `WAYS`; return seconds of the call alone.

    Args:
        way: `nnunet-arrays` reads before the clock starts, and writes nothing.
        plans: with the patch to be used.
        network: of `own_network`.
        files: images.
        out: folder for the label maps.
        work: of `planned`.
    """
    predictor = nnUNetPredictor(
        use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False, verbose=False
    )
    manager = PlansManager(plans)
    configuration = manager.get_configuration(CONFIGURATION)
    described = load_json(str(work / "raw" / NAME / "dataset.json"))
    predictor.manual_initialization(
        network, manager, configuration, [network.state_dict()], described, "nnUNetTrainer", None
    )
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # as its command does
    out.mkdir(parents=True, exist_ok=True)
    given = [[str(file)] for file in files]
    truncated = [str(out / file.stem) for file in files]
    if way == "nnunet-arrays":
        reader = manager.image_reader_writer_class()
        arrays = [reader.read_images(one) for one in given]
        started = time.perf_counter()
        for array, properties in arrays:
            predictor.predict_single_npy_array(array, properties)
    elif way == "nnunet-sequential":
        started = time.perf_counter()
        predictor.predict_from_files_sequential(given, truncated)
    else:
        started = time.perf_counter()
        predictor.predict_from_files(
            given,
            truncated,
            num_processes_preprocessing=WAYS[way],
            num_processes_segmentation_export=WAYS[way],
        )
    return time.perf_counter() - started


def _layers(part: nn.Module) -> list[Any]:
    """Return the layers with weights, in order, each once."""
    return [m for m in part.modules() if getattr(m, "weight", None) is not None]


def _plain(trained: nn.Module, example: Tensor) -> Tensor:
    answer: Tensor = trained.float()(example)
    return answer
