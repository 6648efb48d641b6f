# SPDX-License-Identifier: Apache-2.0
"""MADNorm against the NumPy method, its laws, its gradients, and the same network in ONNX."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn

from vesalius.errors import UsageError
from vesalius.normalization.learned.masked_statistics import masked_mean, masked_median, robust_z
from vesalius.normalization.learned.network import MADNorm, Normalized, verdict
from vesalius.normalization.method import module_of
from vesalius.types import Array

MR, CT = 1, 2
IMAGES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(2, 6), st.integers(2, 6)),
    elements=st.floats(0, 1000, width=32),
)


def made(*shape: int, seed: int = 0) -> Tensor:
    """Return skewed values with bright outliers, like an MR image in arbitrary units."""
    generator = np.random.default_rng(seed)
    values = 300 * generator.gamma(2.0, size=shape)
    values[generator.random(shape) < 0.01] *= 20
    return torch.from_numpy(values.astype(np.float32))


def network(dims: int = 2, *, cnn: bool = True, seed: int = 0) -> MADNorm:
    """Return a layer whose every weight is moved away from its start."""
    torch.manual_seed(seed)
    norm = MADNorm(spatial_dims=dims, modalities=["MR", "CT"], cnn=cnn)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return norm


def closed_form(values: Array, mask: Array) -> Array:
    method = module_of("mad-tanh").METHOD()
    return method.solve(values, mask).apply(values)


@pytest.mark.parametrize("cnn", [False, True])
@pytest.mark.parametrize("shape", [(2, 2, 17, 24), (2, 1, 11, 12, 9)])
def test_it_starts_as_the_numpy_method(shape: tuple[int, ...], cnn: bool) -> None:
    x = made(*shape)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) > 0.4
    norm = MADNorm(spatial_dims=len(shape) - 2, modalities=["MR"], cnn=cnn)
    for told, inside in ((mask, mask), (None, torch.ones_like(mask))):
        y = norm(x, norm.index(["MR", "US"]), told).detach().numpy()
        for n in range(shape[0]):
            for c in range(shape[1]):
                expected = closed_form(x[n, c].numpy(), inside[n, c].numpy())
                np.testing.assert_allclose(y[n, c], expected, atol=1e-5)


def test_it_starts_as_the_numpy_method_on_real_volumes(data: Callable[[str], Path]) -> None:
    files = sorted((data("hippocampus") / "images").glob("*.nii.gz"))
    for path in files[::40]:
        x = np.asarray(nib.load(path).dataobj, np.float32)
        mask = x > np.percentile(x, 20)
        norm = MADNorm(spatial_dims=3)
        y = norm(torch.from_numpy(x)[None, None], mask=torch.from_numpy(mask)[None, None])
        np.testing.assert_allclose(y[0, 0].detach(), closed_form(x, mask), atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(IMAGES, st.randoms(use_true_random=False))
def test_masked_statistics_are_those_of_numpy(values: Array, random: object) -> None:
    mask = np.random.default_rng(random.getrandbits(32)).random(values.shape) > 0.4  # type: ignore[attr-defined]
    flat, inside = values.reshape(*values.shape[:2], -1), mask.reshape(*mask.shape[:2], -1)
    tensors = torch.from_numpy(flat).double(), torch.from_numpy(inside)
    median, mean = masked_median(*tensors), masked_mean(*tensors)
    z, varied = robust_z(*tensors)
    for place in np.ndindex(flat.shape[:2]):
        chosen = flat[place][inside[place]].astype(np.float64)
        assert float(median[place]) == pytest.approx(np.median(chosen) if chosen.size else 0)
        assert float(mean[place]) == pytest.approx(chosen.mean() if chosen.size else 0)
        assert bool(varied[place]) == (chosen.size > 0 and np.ptp(chosen) > 0)
        if varied[place]:
            mad = 1.4826 * np.median(np.abs(chosen - np.median(chosen)))
            scale = mad if mad > 1e-9 * np.ptp(chosen) else chosen.std()  # as the NumPy method
            expected = (flat[place] - np.median(chosen)) / scale
            np.testing.assert_allclose(z[place], expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.booleans(), st.integers(0, 99))
def test_law_affine_invariant(a: float, b: float, cnn: bool, seed: int) -> None:
    norm, x = network(cnn=cnn).double(), made(2, 2, 7, 8, seed=seed).double()
    modality = norm.index(["CT", "MR"])
    torch.testing.assert_close(norm(a * x + b, modality), norm(x, modality), atol=1e-6, rtol=0)


@settings(max_examples=60, deadline=None)
@given(IMAGES)
def test_law_order_preserving_without_the_image_normalizer(values: Array) -> None:
    x = torch.from_numpy(values)
    y = network(cnn=False)(x, torch.full((len(x),), CT)).flatten(2)
    order = x.flatten(2).argsort(-1)
    steps = y.gather(-1, order).diff(dim=-1)
    assert bool((steps >= -1e-5).all())


@settings(max_examples=60, deadline=None)
@given(IMAGES, st.integers(0, 2))
def test_law_unit_sd_where_the_gain_is_one(values: Array, row: int) -> None:
    x = torch.from_numpy(values)
    norm = MADNorm(spatial_dims=2, modalities=["MR", "CT"], cnn=True)
    y = norm(x, torch.full((len(x),), row)).detach().double()
    words = verdict(x)
    for n in range(len(x)):
        for c in range(x.shape[1]):
            sd = float(y[n, c].std(correction=0))
            assert sd == pytest.approx(1 if words[n][c] == "accepted" else 0, abs=1e-3)


@pytest.mark.parametrize("dims", [2, 3])
def test_batch_equals_one_by_one_in_any_order(dims: int) -> None:
    norm = network(dims)
    x, modality = made(4, 2, *[9] * dims), torch.tensor([MR, CT, 0, MR])
    mask = x > 100
    together = norm(x, modality, mask)
    alone = [norm(x[n, None], modality[n, None], mask[n, None]) for n in range(4)]
    torch.testing.assert_close(together, torch.cat(alone))
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(norm(x[order], modality[order], mask[order]), together[order])


def test_a_flat_volume_is_the_image() -> None:
    flat, deep = network(2, cnn=False), network(3, cnn=False)
    x = made(2, 1, 12, 13)
    torch.testing.assert_close(deep(x[..., None])[..., 0], flat(x))


def test_each_modality_has_its_row_and_strangers_share_the_generic_one() -> None:
    norm, x = network(cnn=False), made(1, 2, 8, 8)
    assert norm.index(["CT", "XA", "MR", ""]).tolist() == [CT, 0, MR, 0]
    generic = norm(x)
    for stranger in (-1, 3, 2**40):
        torch.testing.assert_close(norm(x, torch.tensor([stranger])), generic)
    assert not torch.allclose(norm(x, torch.tensor([MR])), generic)
    mixed = norm(x, torch.tensor([[MR, CT]]))
    torch.testing.assert_close(mixed[:, 0], norm(x, torch.tensor([MR]))[:, 0])
    torch.testing.assert_close(mixed[:, 1], norm(x, torch.tensor([CT]))[:, 1])


def test_outside_the_mask_nothing_is_read_and_all_is_mapped() -> None:
    norm, x = network(cnn=False), made(1, 1, 10, 10)
    mask = torch.zeros(1, 1, 10, 10, dtype=torch.bool)
    mask[..., :6] = True
    other = torch.where(mask, x, 1e6)
    torch.testing.assert_close(norm(other, mask=mask)[mask], norm(x, mask=mask)[mask])
    assert float(norm(other, mask=mask)[~mask].min().detach()) > float(
        norm(x, mask=mask)[mask].quantile(0.9).detach()
    )


@pytest.mark.parametrize("cnn", [False, True])
@pytest.mark.parametrize("parity", [0, 1], ids=["even", "odd"])
def test_gradients_are_those_of_finite_differences(cnn: bool, parity: int) -> None:
    norm = network(cnn=cnn).double()
    count = 2 * 1 * 3 * (4 + parity)
    values = torch.randperm(count, generator=torch.Generator().manual_seed(0)).double() ** 1.5
    x = values.reshape(2, 1, 3, 4 + parity).requires_grad_()
    modality = torch.tensor([MR, CT])
    assert torch.autograd.gradcheck(lambda image: norm(image, modality), (x,))
    y = norm(x, modality).square().sum()
    for name, parameter in norm.named_parameters():
        (gradient,) = torch.autograd.grad(y, parameter, retain_graph=True)
        assert bool(gradient.isfinite().all()), name
        assert float(gradient.abs().sum()) > 0, name
    (gradient,) = torch.autograd.grad(y, norm.raw_gain)
    assert float(gradient[0]) == 0  # the generic row had no image


@pytest.mark.parametrize("cnn", [False, True])
def test_images_without_a_scale_come_out_finite_and_are_named(cnn: bool) -> None:
    x = made(5, 1, 8, 8)
    mask = torch.ones_like(x, dtype=torch.bool)
    x[0] = 0.1  # not a float32: a naive mean is another number
    mask[1] = False
    mask[2] = False
    mask[2, 0, 0, 0] = True
    x[3, 0, :7] = 5  # more than half of the values are one: the MAD is 0
    norm = network(cnn=cnn)
    image = x.clone().requires_grad_()
    y = norm(image, mask=mask)
    y.square().sum().backward()
    assert bool(y.isfinite().all())
    assert image.grad is not None
    assert bool(image.grad.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in norm.parameters() if p.grad is not None)
    words = [word for (word,) in verdict(x, mask)]
    assert words == ["constant", "empty-mask", "too-few-voxels", "accepted", "accepted"]
    if not cnn:
        np.testing.assert_allclose(y[0].detach(), float(norm.shift[0].detach()), atol=1e-6)


def test_a_nan_stays_in_its_own_channel_and_is_named() -> None:
    norm, x = network(cnn=True), made(2, 2, 8, 8)
    spoiled = x.clone()
    spoiled[1, 0, 3, 3] = torch.nan
    y, expected = norm(spoiled), norm(x)
    assert bool(y[1, 0].isnan().all())
    torch.testing.assert_close(y[0], expected[0])
    torch.testing.assert_close(y[1, 1], expected[1, 1])
    assert verdict(spoiled) == [("accepted", "accepted"), ("non-finite", "accepted")]


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint16, torch.float16, torch.float64])
def test_every_real_type_is_taken(dtype: torch.dtype) -> None:
    norm, x = network(), made(1, 1, 8, 8).clamp(max=2000).round()
    torch.testing.assert_close(norm(x.to(dtype)), norm(x), atol=1e-4, rtol=0)


def test_it_learns_with_the_task() -> None:
    # the truth depends on a mid-range value that only another clip and gain can bring out
    torch.manual_seed(0)
    x = made(8, 1, 16, 16)
    model = Normalized(MADNorm(spatial_dims=2, modalities=["MR"], cnn=True), nn.Conv2d(1, 1, 1))
    with torch.no_grad():
        truth = 3 * torch.tanh(model.norm(x) ** 2 - 1)
    modality = torch.full((8,), MR)
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = (model(x, modality) - truth).square().mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    end = model.state_dict()
    assert all(not torch.equal(start[name], end[name]) for name in start)
    assert float(end["norm.raw_gain"][0]) == float(start["norm.raw_gain"][0])  # generic: untouched


def test_it_is_saved_as_safetensors_and_built_from_its_record(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    norm, x = network(3), made(2, 1, 6, 7, 8)
    save_file(norm.state_dict(), tmp_path / "norm.safetensors")
    other = MADNorm(**norm.to_json())
    other.load_state_dict(load_file(tmp_path / "norm.safetensors"))
    modality = other.index(["CT", "MR"])
    assert torch.equal(other(x, modality), norm(x, modality))


@pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean")
@pytest.mark.parametrize("dims", [2, 3])
def test_onnx_gives_the_same_numbers(dims: int, tmp_path: Path) -> None:
    axes = {name: {0: "batch"} for name in ("x", "modality", "mask")}
    _compare_onnx(
        dims,
        tmp_path,
        {"dynamo": False, "dynamic_axes": axes, "opset_version": 17},
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:FutureWarning")
@pytest.mark.parametrize("dims", [2, 3])
def test_onnx_by_the_new_exporter_gives_the_same_numbers(dims: int, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    shapes = [{0: torch.export.Dim.DYNAMIC}] * 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # names of axes that are one and the same
        _compare_onnx(dims, tmp_path, {"dynamo": True, "dynamic_shapes": shapes})


def _compare_onnx(dims: int, folder: Path, how: dict[str, object]) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    norm, size = network(dims).eval(), [12] * dims
    x = made(3, 2, *size)
    path = folder / "norm.onnx"
    torch.onnx.export(
        norm,
        (x, norm.index(["MR", "CT", "XA"]), x > 50),
        path,
        input_names=["x", "modality", "mask"],
        verbose=False,
        **how,
    )
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for n in (1, 5):
        x = made(n, 2, *size, seed=n)
        modality, mask = torch.tensor([CT, MR, 0, 7, -1][:n]), x > 50 * n
        fed = {"x": x.numpy(), "modality": modality.numpy(), "mask": mask.numpy()}
        (found,) = session.run(None, fed)
        np.testing.assert_allclose(found, norm(x, modality, mask).detach(), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"spatial_dims": 4}, "spatial_dims"),
        ({"modalities": ["MR", "MR"]}, "modalities"),
        ({"modalities": "MR"}, "modalities"),
        ({"limit": 0}, "limit"),
    ],
)
def test_wrong_settings_are_refused(change: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        MADNorm(**{"spatial_dims": 2, **change})


def test_wrong_tensors_are_refused() -> None:
    norm, x = MADNorm(spatial_dims=2), made(2, 3, 4, 5)
    for call in (
        lambda: norm(x[0]),
        lambda: norm(x[..., :0]),
        lambda: norm(x, torch.zeros(2)),
        lambda: norm(x, torch.zeros(3, dtype=torch.long)),
        lambda: norm(x, mask=torch.ones_like(x)),
        lambda: norm(x, mask=torch.ones(2, 2, 4, 5, dtype=torch.bool)),
    ):
        with pytest.raises(UsageError, match="got"):
            call()
