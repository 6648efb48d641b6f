# SPDX-License-Identifier: Apache-2.0
"""The ladder: a verdict for every image, the rung that mends what was planted, units left alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vesalius.errors import UsageError
from vesalius.normalization import histograms
from vesalius.normalization.certificate import Check, Rung, Verdict
from vesalius.normalization.checks import agrees, compare
from vesalius.normalization.intensity.mad import Mad
from vesalius.normalization.intensity.quantile import FIT as QUANTILE
from vesalius.normalization.ladder import certify
from vesalius.normalization.masks import fitting_mask, holdout
from vesalius.normalization.method import MODULES, module_of
from vesalius.normalization.reference import Reference
from vesalius.normalization.series import Settings, channel_groups
from vesalius.normalization.steps import apply_method
from vesalius.volume import LabelMap, Volume

sys.path.insert(0, str(Path(__file__).parent))
from heads import head, mr, planted, tissues

AUTO = Settings()


def judged(volume: Volume, settings: Settings = AUTO, **more):
    """Return certificate and data of `certify`, after what must hold of every outcome."""
    before = volume.data.copy()
    outcome = certify(volume, settings, key="k", **more)
    certificate = outcome.certificate
    np.testing.assert_array_equal(volume.data, before)
    json.dumps(certificate.to_json(), allow_nan=False)
    assert (outcome.volume is None) == (certificate.verdict == Verdict.REFUSED)
    if outcome.volume is None:
        assert certificate.reason
        assert certificate.message
        return certificate, None
    assert np.isfinite(outcome.volume.data).all()
    assert outcome.volume.data.shape == before.shape
    if certificate.certified:
        assert certificate.method
        assert outcome.volume.data.dtype == np.float32
    return certificate, outcome.volume.data


def rungs(certificate) -> list[str]:
    return [rung.method for rung in certificate.ladder]


def failed(certificate, place: int) -> set[str]:
    return {check.name for check in certificate.ladder[place].checks if not check.passed}


# the ladder


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float16", "float32", "float64"])
def test_a_clean_series_passes_with_the_z_score(dtype: str) -> None:
    x = np.round(head())
    certificate, data = judged(mr(x.astype(dtype)))
    assert certificate.verdict == Verdict.PASSED
    assert rungs(certificate) == ["zscore"]
    assert certificate.sd == pytest.approx(1, abs=1e-4)
    assert certificate.mask["kind"] == "mr-foreground"
    (transfer,) = certificate.transfers[0]
    z = (x - transfer["center"]) / transfer["scale"]
    np.testing.assert_allclose(data[0], z, atol=1e-5)
    inside = tissues() > 0
    assert transfer["center"] == pytest.approx(x[inside].mean(), rel=0.05)
    assert transfer["scale"] == pytest.approx(x[inside].std(), rel=0.05)


@pytest.mark.parametrize("share", [0.002, 0.01, 0.03])
@pytest.mark.parametrize("times", [8.0, 50.0, -50.0])
def test_planted_outliers_are_passed_by_mad(share: float, times: float) -> None:
    mask = tissues() > 0
    given = LabelMap(mask[None].astype(np.uint8), np.eye(4))
    certificate, _ = judged(mr(planted(head(), mask, share, times)), given=given)
    assert certificate.verdict == Verdict.ESCALATED
    assert rungs(certificate) == ["zscore", "mad"]
    assert "outliers" in failed(certificate, 0)
    assert 0.99 <= certificate.sd <= 1.01


@pytest.mark.parametrize("k", [6, 11])
@pytest.mark.parametrize("slope", [0.5, 1.8])
def test_a_wrong_slope_of_one_slice_is_seen_and_mended(k: int, slope: float) -> None:
    clean = head()
    spoiled = clean.copy()
    spoiled[:, :, k] *= slope
    seen, kept = judged(mr(spoiled), Settings(method="zscore"))
    if seen.verdict == Verdict.REFUSED:
        assert seen.reason == "slice-drift"
    assert seen.worst_slice == k
    assert "slice-drift" in failed(seen, 0)
    assert kept is None or "slice-drift" in seen.notes[-1]
    mended, data = judged(mr(spoiled))
    assert mended.verdict == Verdict.ESCALATED
    assert mended.method.startswith("slice-slope+")
    (record,) = mended.corrections
    assert [one["slice"] for one in record["channels"][0]["repaired"]] == [k]
    assert mended.slice_drift < 0.3
    inside = tissues()[:, :, k] > 0
    reference = Mad().solve(clean, tissues() > 0).apply(clean)
    error = np.abs(data[0][:, :, k] - reference[:, :, k])[inside]
    assert np.median(error) < 0.15  # standard deviations


def test_the_slice_rung_keeps_its_contract() -> None:
    values, mask = head(), tissues() > 0
    corrected, record = module_of("slice-slope").correct(values, mask, spacing=(1.0, 1.0, 1.0))
    np.testing.assert_allclose(corrected, values, rtol=1e-6, atol=1e-4)
    assert record["repaired"] == []


def strange(shape=(36, 40, 18), gain: float = 2.5, offset: float = 3.0):
    """Return a head whose held-out region is another tissue, and its mask: no curve mends it."""
    x, kinds = head(shape=shape), tissues(shape=shape)
    given = LabelMap((kinds > 0)[None].astype(np.uint8), np.eye(4))
    region = holdout(fitting_mask(mr(x), given=given))[1].data
    mean, sd = x[kinds > 0].mean(), x[kinds > 0].std()
    x[region] = mean + gain * (x[region] - mean) + offset * sd
    return x, given


def test_every_rung_is_climbed_before_a_refusal() -> None:
    """What was not fitted on departs far: each rung is tried, the bias field's among them."""
    fit = QUANTILE()
    fit.add(head(5), tissues(5) > 0)
    x, given = strange()
    certificate, _ = judged(mr(x), Settings(fitted={"MR": fit.finish()}), given=given)
    assert rungs(certificate) == ["zscore", "mad", "n4+mad", "quantile+mad"]
    assert certificate.verdict == Verdict.REFUSED
    assert certificate.reason == "reference"
    assert "region-mean" in certificate.message
    assert all("region-mean" in failed(certificate, n) for n in range(4))


def test_the_n4_rung_removes_a_strong_field() -> None:
    clean, mask = head(), tissues() > 0
    field = np.exp(np.linspace(-0.6, 0.6, 36))[:, None, None] * np.ones(clean.shape)
    given = LabelMap(mask[None].astype(np.uint8), np.eye(4))
    _, plain = judged(mr(clean * field), Settings(method="mad"), given=given)
    certificate, mended = judged(mr(clean * field), Settings(method="n4+mad"), given=given)
    assert certificate.method == "n4+mad"
    assert len(certificate.corrections) == 1

    def within(data) -> float:
        """Spread of white matter, against the gap to gray matter."""
        white, gray = data[tissues() == 3], data[tissues() == 2]
        return white.std() / (white.mean() - gray.mean())

    assert within(mended[0]) < 0.6 * within(plain[0])


def test_few_slices_climb_no_bias_field() -> None:
    x, given = strange(shape=(48, 44, 6))
    certificate, _ = judged(mr(x), given=given)
    assert rungs(certificate) == ["zscore", "mad"]


def test_a_rung_that_breaks_leaves_the_word_to_those_before_it(monkeypatch) -> None:
    from vesalius.errors import NormalizationRefused
    from vesalius.normalization.spatial import n4

    def broken(*_args, **_kwargs):
        raise NormalizationRefused("too-few-voxels", "no field can be fitted")

    monkeypatch.setattr(n4, "correct", broken)
    x, given = strange()
    certificate, _ = judged(mr(x), given=given)
    assert rungs(certificate) == ["zscore", "mad", "n4+mad"]
    assert certificate.ladder[-1].checks[0].note == "no field can be fitted"
    assert certificate.reason == "reference"


# the reference


def reference_of(mean: float, sd: float, count: int = 8, group: str = "MR") -> Reference:
    rng = np.random.default_rng(0)
    reference = Reference()
    shares = histograms.shares(rng.normal(mean, sd, 9999))
    for _ in range(count):
        reference.add(
            group,
            mean=mean + rng.normal(0, 0.01),
            sd=sd + rng.normal(0, 0.01),
            shares=shares,
        )
    return reference


def test_a_series_is_held_against_the_reference() -> None:
    certificate, _ = judged(mr(head()), Settings(reference=reference_of(0.0, 1.0)))
    assert certificate.verdict == Verdict.PASSED
    assert 0 < certificate.ks < 0.3
    assert certificate.kl > 0
    plain, _ = judged(mr(head()))
    assert plain.ks is None
    later = compare(plain, reference_of(0.0, 1.0))
    assert agrees(later)
    assert (later.ks, later.kl) == (certificate.ks, certificate.kl)
    assert later.ladder[0].checks == certificate.ladder[0].checks
    x, given = strange(gain=1.0, offset=0.25)  # a little off: the reference decides
    assert judged(mr(x), given=given)[0].notes
    near, _ = judged(mr(x), Settings(reference=reference_of(0.25, 1.0)), given=given)
    assert (near.verdict, near.notes) == (Verdict.PASSED, ())
    assert agrees(compare(near, reference_of(0.25, 1.0)))
    assert not agrees(compare(near, reference_of(0.0, 1.0)))


def test_a_series_that_only_agrees_with_itself_is_refused() -> None:
    """The limits are the reference's, not those of the series' own mean and spread."""
    certificate, _ = judged(mr(head()), Settings(reference=reference_of(28.0, 20.0)))
    assert (certificate.verdict, certificate.reason) == (Verdict.REFUSED, "reference")
    assert "region-mean" in certificate.message


def test_too_few_series_judge_nobody() -> None:
    plain, _ = judged(mr(head(shape=(20, 20, 8))))
    assert compare(plain, reference_of(1.5, 2.0, count=4)).ladder == plain.ladder
    assert compare(plain, reference_of(1.5, 2.0, group="CT HU")) == plain
    refused, _ = judged(mr(np.zeros((4, 4, 4))))
    assert compare(refused, reference_of(0, 1)) is refused
    assert agrees(refused)


# odd images


NOISE = np.random.default_rng(0).integers(0, 255, (3, 40, 40, 1), dtype=np.uint8)


def odd() -> dict[str, tuple[Volume, Verdict, str]]:
    x = head()
    nan, zero, fill, infinite = (x.copy() for _ in range(4))
    nan[3, 3, 3], infinite[4, 4, 4] = np.nan, np.inf
    zero[:, :, 8] = 0
    fill[tissues() == 0] = -1.79e308
    eye = np.eye(4)
    passed, refused = Verdict.PASSED, Verdict.REFUSED
    return {
        "nan": (mr(nan), refused, "non-finite"),
        "infinite": (mr(infinite.astype(np.float32)), refused, "non-finite"),
        "marks of double precision": (mr(fill), refused, "non-finite"),
        "constant": (mr(np.full((9, 9, 9), 7, np.int16)), refused, "constant"),
        "constant bool": (mr(np.ones((9, 9, 9), bool)), refused, "constant"),
        "one voxel": (mr(np.ones((1, 1, 1))), refused, "constant"),
        "no voxel": (Volume(np.ones((1, 0, 3, 1)), eye), refused, "empty"),
        "no channel": (Volume(np.ones((0, 3, 3, 1)), eye), refused, "empty"),
        "too small to square": (mr(x * 1e-300), refused, "constant"),
        "zero slice": (mr(zero), passed, ""),
        "two voxels": (Volume(np.array([1.0, 2]).reshape(1, 2, 1, 1), eye), passed, ""),
        "a line": (Volume(np.arange(50.0).reshape(1, 50, 1, 1), eye), passed, ""),
        "bool": (mr(tissues() > 1), passed, ""),
        "far from zero": (mr(x + 1e9), passed, ""),
        "Fortran": (mr(np.asfortranarray(x)), passed, ""),
        "large": (mr((x * 1e35).astype(np.float32)), passed, ""),
        "gray 2D": (Volume(x[None, :, :, 9:10], eye), passed, ""),
        "color": (Volume(NOISE, eye), passed, ""),
        "color, opaque": (
            Volume(np.concatenate([NOISE, np.full((1, 40, 40, 1), 255, np.uint8)]), eye),
            passed, "",
        ),
        "gray as color": (Volume(np.repeat(NOISE[:1], 3, axis=0), eye), passed, ""),
        "two channels": (Volume(np.stack([x, 2 * x + 4]), eye, modality="MR"), passed, ""),
        "first constant": (Volume(np.stack([0 * x, x]), eye, modality="MR"), passed, ""),
        "last constant": (Volume(np.stack([x, 0 * x + 3]), eye, modality="MR"), passed, ""),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(odd()))
def test_every_odd_image_gets_a_verdict(name: str) -> None:
    volume, verdict, reason = odd()[name]
    certificate, data = judged(volume)
    assert (certificate.verdict, certificate.reason) == (verdict, reason)
    if data is not None:
        assert certificate.sd == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_constant_channel_is_left_out_of_slice_repair_and_comes_out_as_zero(share) -> None:
    x = head()
    x[:, :, 9] *= 1.8 if share else 1.0
    certificate, data = judged(Volume(np.stack([0 * x + 3, x]), np.eye(4), modality="MR"))
    assert certificate.certified
    assert certificate.method == ("slice-slope+mad" if share else "zscore")
    assert (data[0] == 0).all()
    assert certificate.transfers[0] == ()
    assert len(certificate.transfers[1]) == 1


def test_colors_keep_their_relation() -> None:
    rng = np.random.default_rng(3)
    rgb = rng.integers(0, 200, (3, 40, 40, 1)) + np.array([50, 20, 0])[:, None, None, None]
    certificate, data = judged(Volume(rgb.astype(np.uint8), np.eye(4)))
    assert len({json.dumps(curves) for curves in certificate.transfers}) == 1
    assert data[0].mean() > data[1].mean() > data[2].mean()
    volume = Volume(np.concatenate([rgb, rgb[:2]]), np.eye(4))
    assert channel_groups(volume) == [slice(0, 3), slice(3, 4), slice(4, 5)]
    assert channel_groups(Volume(rgb.repeat(2, axis=3), np.eye(4))) == [
        slice(0, 1), slice(1, 2), slice(2, 3),
    ]  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(["uint8", "int16", "uint16", "float16", "float32", "float64"]),
    st.tuples(st.integers(1, 4), *[st.integers(1, 12)] * 3),
    st.sampled_from(["", "MR", "CT", "PT", "US", "DX", "SM", "XC"]),
    st.sampled_from(["noise", "mostly zero", "two values", "nan", "huge"]),
)
@example(1, "float16", (3, 1, 1, 5), "SM", "two values")  # glass that is dark in a color
def test_small_images_of_any_kind_never_crash(seed, dtype, shape, modality, kind) -> None:
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 200, shape).astype(dtype)
    if kind == "mostly zero":
        data[rng.random(shape) < 0.9] = 0
    if kind == "two values":
        data = (data > 100).astype(dtype)
    if kind == "nan" and data.dtype.kind == "f":
        data[rng.random(shape) < 0.1] = np.nan
    if kind == "huge" and data.dtype.kind == "f":
        data[rng.random(shape) < 0.1] = np.finfo(dtype).max
    judged(Volume(data, np.eye(4), modality=modality))


@pytest.mark.parametrize("name", list(MODULES))
def test_every_method_gives_a_verdict(name: str) -> None:
    fitted = {}
    module = module_of(name)
    if module.CARD.fitted and str(module.CARD.kind) == "intensity":
        fit = module.FIT()
        for seed in (1, 2):
            fit.add(head(seed), tissues(seed) > 0)
        fitted = {"MR": fit.finish()}
    certificate, data = judged(mr(head()), Settings(method=name, fitted=fitted))
    kind = str(module.CARD.kind)
    if kind in ("intensity", "spatial") and (fitted or not module.CARD.fitted):
        assert certificate.verdict != Verdict.REFUSED or certificate.reason == "too-few-voxels"
    else:
        assert certificate.verdict == Verdict.REFUSED
    promised = "unit-sd" in map(str, module.CARD.laws)
    if data is not None:
        named = [check.name for rung in certificate.ladder for check in rung.checks]
        assert ("sd" in named) == promised
        assert promised or f"'{name}' promises no standard deviation" in certificate.notes[0]


def test_an_unknown_method_is_a_wrong_call() -> None:
    with pytest.raises(UsageError, match="method must be one of"):
        certify(mr(head()), Settings(method="zscroe"))


# given masks


def test_a_given_mask_is_where_the_promise_holds() -> None:
    x = head()
    inner = np.zeros((1, *x.shape), np.uint8)
    inner[0, 10:26, 10:30, 4:14] = 1
    certificate, data = judged(mr(x), given=LabelMap(inner, np.eye(4)))
    assert certificate.mask["kind"] == "given"
    assert certificate.mask["voxels"] + certificate.mask["region_voxels"] == inner.sum()
    assert data[0][inner[0] > 0].std() == pytest.approx(1, abs=0.05)
    other, _ = judged(mr(x))
    assert other.transfers != certificate.transfers


@pytest.mark.parametrize(("voxels", "reason"), [(0, "empty-mask"), (1, "too-few-voxels")])
def test_a_given_mask_that_holds_too_little_is_refused(voxels: int, reason: str) -> None:
    mask = np.zeros((1, 36, 40, 18), np.uint8)
    mask[0, 18, 20, 9] = voxels
    certificate, _ = judged(mr(head()), given=LabelMap(mask, np.eye(4)))
    assert certificate.reason == reason


def test_a_given_mask_off_the_grid_is_a_wrong_call() -> None:
    mask = np.ones((1, 36, 40, 18), np.uint8)
    moved = np.eye(4)
    moved[0, 3] = 7
    for wrong in (LabelMap(mask, moved), LabelMap(mask[..., :9], np.eye(4))):
        with pytest.raises(UsageError, match="must lie on the grid of the image"):
            certify(mr(head()), AUTO, given=wrong)


# physical units


def ct(dtype=np.int16) -> np.ndarray:
    return np.where(tissues() > 0, head() / 20, -1000).astype(dtype)


@pytest.mark.parametrize("unit", ["HU", ""])
def test_ct_in_hounsfield_units_stays_voxel_for_voxel(unit: str) -> None:
    volume = Volume(ct()[None], np.eye(4), modality="CT", unit=unit)
    certificate, data = judged(volume)
    assert certificate.verdict == Verdict.FIXED
    assert (certificate.unit, certificate.method, certificate.transfers) == ("HU", "", ())
    np.testing.assert_array_equal(data, volume.data)
    assert data.dtype == np.int16
    inside = ct()[tissues() > 0]
    assert certificate.mean == pytest.approx(inside.mean(), abs=1.5)
    assert certificate.sd == pytest.approx(inside.std(), rel=0.1)
    assert bool(certificate.notes) == (not unit)


def test_ct_is_rescaled_when_asked() -> None:
    volume = Volume(ct()[None], np.eye(4), modality="CT", unit="HU")
    certificate, data = judged(volume, Settings(rescale_units=True))
    assert certificate.certified
    assert data[0][ct() > -900].std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("data", "modality", "unit", "word"),
    [
        (ct() + 3000, "CT", "HU", "a body lies between"),
        (np.where(tissues() == 1, 6000, ct()), "CT", "HU", "no HU of any tissue"),
        (np.where(tissues() > 0, head(), 0) - 400, "PT", "Bq/ml", "cannot be negative"),
        (np.where(tissues() > 0, head(), 0) - 400, "PT", "", "cannot be negative"),
        (np.where(tissues() > 0, head(), 0) - 400, "MR", "mm2/s", "cannot be negative"),
    ],
    ids=["offset", "slope", "PET", "PET without unit", "ADC"],
)
def test_values_that_cannot_have_their_unit_are_refused(data, modality, unit, word) -> None:
    certificate, _ = judged(Volume(data[None], np.eye(4), modality=modality, unit=unit))
    assert (certificate.verdict, certificate.reason) == (Verdict.REFUSED, "units")
    assert word in certificate.message


@pytest.mark.parametrize("finding", ["uneven-slope", "wrong-slope", "not-hounsfield"])
def test_what_the_check_found_refuses_a_fixed_unit(finding: str) -> None:
    volume = Volume(ct()[None], np.eye(4), modality="CT", unit="HU")
    certificate, _ = judged(volume, findings=["two-patients", finding])
    assert (certificate.verdict, certificate.reason) == (Verdict.REFUSED, "units")
    assert finding in certificate.message
    assert judged(volume, findings=["two-patients"])[0].verdict == Verdict.FIXED


def test_fixed_units_agree_with_the_reference_or_are_refused() -> None:
    volume = Volume(ct()[None], np.eye(4), modality="CT", unit="HU")
    plain, _ = judged(volume)
    for mean, verdict in ((plain.mean, Verdict.FIXED), (plain.mean + 300, Verdict.REFUSED)):
        known = reference_of(mean, plain.sd, group="CT HU")
        certificate, _ = judged(volume, Settings(reference=known))
        assert certificate.verdict == verdict
    assert "reference-mean" in certificate.message


def test_a_picture_of_a_ct_is_rescaled() -> None:
    picture = np.clip(head() / 5, 0, 255).astype(np.uint8)
    certificate, _ = judged(Volume(picture[None], np.eye(4), modality="CT"))
    assert certificate.verdict == Verdict.PASSED
    assert certificate.unit == ""


# pieces


def test_apply_method_gives_the_curve_of_each_channel() -> None:
    x = head()
    mask = tissues() > 0
    data = np.stack([x, np.full_like(x, 4), 3 * x])
    out, curves = apply_method(Mad(), data, mask, [slice(n, n + 1) for n in range(3)])
    assert curves[1] is None
    assert (out[1] == 0).all()
    np.testing.assert_allclose(out[0], out[2], atol=1e-4)
    np.testing.assert_array_equal(out[0], curves[0].apply(x))


def test_a_rung_that_could_pass_is_chosen_before_one_that_refuses() -> None:
    """Outliers refuse wherever they are seen; a region a little outside does not."""
    x, given = strange(gain=0.75, offset=0.25)
    certificate, _ = judged(mr(planted(x, tissues() > 0, 0.01, 50.0)), given=given)
    assert "outliers" in failed(certificate, 0)
    assert failed(certificate, 1) == {"region-mean", "region-sd"}
    assert certificate.verdict == Verdict.ESCALATED
    assert any("a little outside" in note for note in certificate.notes)
    assert isinstance(certificate.ladder[0], Rung)
    assert isinstance(certificate.ladder[0].checks[0], Check)
