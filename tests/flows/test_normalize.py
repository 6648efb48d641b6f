# SPDX-License-Identifier: Apache-2.0
"""`normalize` as a user meets it: files in; series, certificates, a page out; killed, resumed."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from vesalius import io
from vesalius.cohorts import Cohort
from vesalius.cohorts.phantom import write_phantom
from vesalius.errors import BudgetError, CohortError, RunError, UsageError
from vesalius.flows.normalize import explain, normalize
from vesalius.flows.scan import scan
from vesalius.normalization import Normalizer, Verdict
from vesalius.normalization.intensity.percentile import Percentile

sys.path.insert(0, str(Path(__file__).parents[1] / "normalization"))
from heads import head, planted, tissues

NAME = "Mustermann_Erika"  # in the folder's and the files' names: must not come out
SHAPE = (24, 26, 12)


def strange(seed: int, offset: float) -> np.ndarray:
    """A head whose held-out cubes (see `masks.holdout`) are a little brighter than the others."""
    x, inside = head(seed, SHAPE), tissues(seed, SHAPE) > 0
    i, j, k = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    held = (i // (SHAPE[0] // 16) + 3 * (j // (SHAPE[1] // 16)) + 5 * k) % 8 == 0
    return np.where(held & inside, x + offset * x[inside].std(), x)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads of patients, two of them strange, one with outliers; odd files."""
    root = tmp_path_factory.mktemp("data") / NAME
    root.mkdir()

    def save(name: str, values: np.ndarray) -> None:
        nib.save(nib.Nifti1Image(values, np.eye(4)), root / f"{NAME}_{name}.nii.gz")

    for n in range(12):
        save(f"head{n}", head(n, SHAPE).astype(np.float32))
    spoiled = planted(head(12, SHAPE), tissues(12, SHAPE) > 0, 0.01, 8.0)
    save("outliers", spoiled.astype(np.int16))
    save("strange1", strange(13, 0.35).astype(np.float32))
    save("strange2", strange(14, -0.42).astype(np.float32))
    save("constant", np.full(SHAPE, 7, np.int16))
    save("nan", np.where(tissues(0, SHAPE) == 3, np.nan, head(0, SHAPE)).astype(np.float32))
    save("broken", head(15, SHAPE))  # by whom: see `cohort`
    (root / "notes.txt").write_text("nothing to see")
    return root


@pytest.fixture(scope="module")
def cohort(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cohort")
    scan(data, out=out, workers=1)
    whole = (data / f"{NAME}_broken.nii.gz").read_bytes()
    (data / f"{NAME}_broken.nii.gz").write_bytes(whole[: len(whole) // 2])
    return out


@pytest.fixture(scope="module")
def done(cohort: Path, tmp_path_factory: pytest.TempPathFactory):
    return normalize(cohort, to=tmp_path_factory.mktemp("done"), workers=1)


def content(folder: Path) -> dict[str, bytes]:
    """Return name -> bytes of what `normalize` wrote; series without the clock of gzip."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.is_file():
            packed = path.read_bytes()
            found[path.name] = gzip.decompress(packed) if path.suffix == ".gz" else packed
    return found


def of(result, cohort: Path, name: str):
    """Return the certificate of a file."""
    rows = {row["key"]: row["files"][0] for row in Cohort.open(cohort).iter_rows(["key", "files"])}
    (found,) = [c for c in result.certificates if rows[c.key].endswith(f"_{name}.nii.gz")]
    return found


def test_every_series_has_a_certificate_and_each_that_passed_lies_beside_it(done, cohort) -> None:
    assert len(done.certificates) == 18 == sum(done.counts.values())
    for certificate in done.certificates:
        written = done.out / f"{certificate.key}.nii.gz"
        assert (done.out / f"{certificate.key}.certificate.json").exists()
        assert written.exists() == (certificate.verdict != Verdict.REFUSED)
        assert certificate.output == (written.name if written.exists() else "")
        if certificate.certified:
            assert certificate.sd == pytest.approx(1, abs=0.05)
            assert np.isfinite(io.read(written).data).all()
    reasons = {n: of(done, cohort, n).reason for n in ("constant", "nan", "broken")}
    assert reasons == {"constant": "constant", "nan": "non-finite", "broken": "corrupt-file"}
    assert of(done, cohort, "outliers").method == "mad"
    assert of(done, cohort, "head1").verdict == Verdict.PASSED
    names = {path.name for path in done.out.iterdir()}
    assert not [name for name in names if name.endswith(".tmp")]
    assert names >= {
        "normalization.html", "normalization.json", "normalizer.json", "reference.json",
        "certificates.csv",
    }  # fmt: skip


def test_what_is_written_is_the_curve_of_the_certificate(done, cohort, data) -> None:
    certificate = of(done, cohort, "head2")
    ((curve,),) = certificate.transfers
    source = nib.load(data / f"{NAME}_head2.nii.gz").get_fdata()
    written = nib.load(done.out / certificate.output)
    expected = (source - curve["center"]) / curve["scale"]
    np.testing.assert_allclose(written.get_fdata(), expected, atol=1e-4)
    np.testing.assert_array_equal(written.affine, np.eye(4))


def test_series_that_stand_out_from_the_cohort_climbed_on(done, cohort) -> None:
    """The second pass: the strange ones were tried with the whole cohort's histogram too."""
    for name in ("strange1", "strange2"):
        assert "quantile+mad" in [rung.method for rung in of(done, cohort, name).ladder]
    assert (done.out / "quantile.json").exists()
    for name in ("head1", "outliers"):
        assert of(done, cohort, name).ks is not None


def test_the_same_call_again_changes_no_byte(done, cohort) -> None:
    before = content(done.out)
    again = normalize(cohort, to=done.out, workers=2)
    assert again.certificates == done.certificates
    assert content(done.out) == before


_KILLED = """
import os, signal, sys
from vesalius.flows.normalize import normalize
cohort, out, stage, at, second, workers = sys.argv[1:]
def progress(name, done, total):
    passed = os.path.exists(os.path.join(out, "quantile.json"))
    if name == stage and done >= int(at) and passed == (second == "second"):
        os.kill(os.getpid(), signal.SIGKILL)
normalize(cohort, to=out, workers=int(workers), progress=progress)
"""


def test_killed_in_either_pass_the_same_command_ends_as_if_it_had_not_been(
    done, cohort, tmp_path: Path
) -> None:
    """And two workers make what one made."""
    out = tmp_path / "out"
    for moment in (("normalize", 3, "first", 1), ("normalize", 1, "second", 2)):
        command = [sys.executable, "-c", _KILLED, cohort, out, *map(str, moment)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert list(out.glob("*.certificate.json"))
        with pytest.raises(RunError, match="is not finished: run its command again"):
            explain(out)
    assert (out / "quantile.json").exists()
    result = normalize(cohort, to=out, workers=2)
    assert result.certificates == done.certificates
    found, expected = content(out), content(done.out)
    assert {n: b for n, b in found.items() if not n.endswith(".tmp")} == expected


def test_other_arguments_into_the_same_folder_are_refused(done, cohort, data, tmp_path) -> None:
    before = content(done.out)
    for other, word in (
        ({"method": "zscore"}, "method"),
        ({"sd_tolerance": 0.1}, "sd_tolerance"),
        ({"format": "nrrd"}, "written"),
        ({"rescale_units": True}, "rescale_units"),
        ({"masks": True}, "masks"),
        ({"where": "modality = 'MR'"}, "where"),
    ):
        with pytest.raises(UsageError, match=f"different: .*{word}"):
            normalize(cohort, to=done.out, **other)
    with pytest.raises(UsageError, match="different: data"):
        normalize(data, to=done.out)  # refused before anything is scanned into the folder
    assert not (done.out / "cohort").exists()
    assert content(done.out) == before


def test_a_folder_of_files_is_scanned_and_another_does_not_mix_in(tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for n in range(3):
            pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{n}.png")
    out = tmp_path / "out"
    result = normalize(tmp_path / "one", to=out, workers=1)
    assert result.counts["passed"] == 3
    with pytest.raises(UsageError, match="different: data"):
        normalize(tmp_path / "two", to=out)
    again = normalize(tmp_path / "one", to=out, workers=1)
    assert again.certificates == result.certificates
    with pytest.raises(UsageError, match="lies in the data"):
        normalize(tmp_path / "one", to=tmp_path / "one" / "normalized")
    assert not (tmp_path / "one" / "normalized").exists()


def test_explain_reads_it_all_again(done) -> None:
    (done.out / "normalization.html").unlink()
    told = explain(done.out)
    assert told.certificates == done.certificates
    assert told.equivalence == done.equivalence
    assert told.normalizer == done.normalizer
    assert done.report.exists()
    shown = told.to_json()
    assert shown["counts"] == done.counts
    json.dumps(shown, allow_nan=False)
    assert "histograms" not in shown["certificates"][0]
    with pytest.raises(RunError, match="holds no normalization"):
        explain(done.out / "nowhere")


def test_no_name_and_no_path_comes_out(done, data) -> None:
    table = (done.out / "certificates.csv").read_text()
    assert len(list(csv.DictReader(StringIO(table)))) == len(done.certificates)
    for name, held in content(done.out).items():
        assert NAME not in name
        for secret in (NAME.encode(), str(data.parent).encode(), b"/tmp/"):
            assert secret not in held, name


def test_a_full_disk_is_refused_before_the_work(cohort, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=50_000))
    with pytest.raises(BudgetError, match="GB are free"):
        normalize(cohort, to=tmp_path / "out")
    assert not list(tmp_path.glob("out/*.certificate.json"))


def test_a_reference_folder_or_cohort_is_agreed_with(done, cohort, tmp_path: Path) -> None:
    where = "files[1] LIKE '%strange1%' OR files[1] LIKE '%head3%'"
    by_folder = normalize(cohort, to=tmp_path / "a", reference=done.out, where=where, workers=1)
    by_cohort = normalize(cohort, to=tmp_path / "b", reference=cohort, where=where, workers=1)
    assert len(by_folder.certificates) == 2
    assert of(by_folder, cohort, "head3").ks == pytest.approx(
        of(done, cohort, "head3").ks, abs=0.02
    )
    for result in (by_folder, by_cohort):
        assert of(result, cohort, "head3").verdict == Verdict.PASSED
        strange = of(result, cohort, "strange1")
        assert strange.verdict != Verdict.PASSED or strange.notes
    kept = (done.out / "quantile.json").read_bytes()
    assert (by_folder.out / "quantile.json").read_bytes() == kept
    assert "quantile+mad" in [rung.method for rung in of(by_folder, cohort, "strange1").ladder]
    assert not (by_cohort.out / "quantile.json").exists()
    with pytest.raises(UsageError, match="different: reference"):
        normalize(cohort, to=tmp_path / "a", where=where, workers=1)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(done.out / "normalization.json", unfinished)
    with pytest.raises(RunError, match="is not finished"):
        normalize(cohort, to=tmp_path / "c", reference=unfinished)
    with pytest.raises(RunError, match="holds no normalization"):
        normalize(cohort, to=tmp_path / "c", reference=tmp_path / "nowhere")


def test_a_reference_of_another_method_is_refused_before_the_work(done, cohort, tmp_path) -> None:
    where = "files[1] LIKE '%head3%'"
    record = json.loads((done.out / "reference.json").read_text())
    assert (record["method"], record["options"], record["sd_tolerance"]) == ("auto", {}, 0.05)
    assert record["groups"]
    for method, options, words in (
        ("zscore", {}, "was made with auto, this call asks for zscore"),
        ("mad", {"clip": 2.5}, r"made with auto, this call asks for mad \(clip=2.5\)"),
    ):
        with pytest.raises(UsageError, match=words):
            normalize(cohort, to=tmp_path / "x", method=method, options=options, reference=done.out)
    assert not (tmp_path / "x").exists()
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    shutil.copy(done.out / "normalization.json", damaged)
    (damaged / "reference.json").write_text("{}")
    with pytest.raises(RunError, match="'method' is missing"):
        normalize(cohort, to=tmp_path / "x", reference=damaged, where=where)


def test_a_fitted_method_takes_the_fit_of_its_reference(cohort, tmp_path: Path) -> None:
    """Of a folder as it lies there, of a cohort after reading it; not of the new data."""
    some = "files[1] LIKE '%head%'"
    first = normalize(cohort, to=tmp_path / "first", method="nyul", where=some, workers=1)
    assert first.normalizer.fitted
    one = "files[1] LIKE '%strange1%'"
    by_folder = normalize(
        cohort, to=tmp_path / "a", method="nyul", where=one, reference=first.out, workers=1
    )
    assert by_folder.normalizer.fitted == first.normalizer.fitted
    by_cohort = normalize(
        cohort, to=tmp_path / "b", method="nyul", where=one, reference=cohort, workers=1
    )
    whole = normalize(cohort, to=tmp_path / "c", method="nyul", workers=1)
    assert by_cohort.normalizer.fitted == whole.normalizer.fitted
    assert len(json.loads((by_cohort.out / "reference.json").read_text())["groups"]) == 1
    alone = normalize(cohort, to=tmp_path / "d", method="nyul", where=one, workers=1)
    assert alone.normalizer.fitted != first.normalizer.fitted
    record = json.loads((first.out / "normalizer.json").read_text())
    (first.out / "normalizer.json").write_text(json.dumps({**record, "fitted": {}}))
    with pytest.raises(RunError, match="holds no fit of 'nyul'"):
        normalize(cohort, to=tmp_path / "e", method="nyul", where=one, reference=first.out)


def test_a_reference_that_knows_nothing_of_the_data_is_refused(
    done, cohort, phantom, tmp_path: Path
) -> None:
    with pytest.raises(CohortError, match="holds the modalities unknown, these data CT, MR"):
        normalize(phantom, to=tmp_path / "a", reference=done.out)
    root = tmp_path / "flat"
    root.mkdir()
    nib.save(nib.Nifti1Image(np.full(SHAPE, 7, np.int16), np.eye(4)), root / "flat.nii.gz")
    scan(root, out=tmp_path / "constant", workers=1)
    with pytest.raises(CohortError, match=r"no series of the reference .* was certified"):
        normalize(cohort, to=tmp_path / "b", reference=tmp_path / "constant", workers=1)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("mad", {"clip": 2.0}),
        ("nyul+mad", {"low": 5.0}),
        ("n4+zscore", {"shrink": 1, "iterations": [3, 2]}),
        ("n4", {"shrink": 1, "iterations": [3, 2]}),
    ],
)
def test_the_normalizer_goes_through_the_whole_chain(
    method, options, cohort, data, tmp_path: Path
) -> None:
    where = "files[1] LIKE '%head4%' OR files[1] LIKE '%head5%'"
    result = normalize(
        cohort, to=tmp_path / "out", method=method, options=options, where=where, workers=1
    )
    assert Normalizer.load(result.out / "normalizer.json") == result.normalizer
    assert explain(result.out).normalizer == result.normalizer
    made = result.normalizer.apply(io.read(data / f"{NAME}_head4.nii.gz")).data[0]
    written = io.read(result.out / of(result, cohort, "head4").output).data[0]
    inside = tissues(4, SHAPE) > 0
    away = (made - written)[inside] / written[inside].std()
    assert np.abs(away).max() < 0.15  # the normalizer fits in the whole mask


def test_after_auto_the_normalizer_is_mad(done) -> None:
    assert done.normalizer.method.card.name == "mad"
    assert (done.normalizer.before, dict(done.normalizer.fitted)) == ((), {})


def test_red_green_and_blue_are_fitted_together(tmp_path: Path) -> None:
    """With three curves fitted apart the colors would be matched to a mixture of channels."""
    from PIL import Image

    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    for n in range(3):
        pixels = rng.integers(0, 60, (40, 40, 3)) + np.array([10, 90, 190])
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / f"{n}.png")
    scan(tmp_path / "data", out=tmp_path / "cohort", workers=1)
    result = normalize(tmp_path / "cohort", to=tmp_path / "out", method="nyul", workers=1)
    (fitted,) = result.normalizer.fitted.values()
    # Jointly the scale has the gaps between the three colors; apart it would be even.
    steps = np.diff(fitted.scale)
    assert steps.max() > 1.8 * np.median(steps)


def test_the_normalizer_treats_further_images_alike(done, cohort, data) -> None:
    normalizer = Normalizer.load(done.out / "normalizer.json")
    assert normalizer == done.normalizer
    made = normalizer.apply(io.read(data / f"{NAME}_head4.nii.gz")).data[0]
    certificate = of(done, cohort, "head4")
    written = io.read(done.out / certificate.output).data[0]
    inside = tissues(4, SHAPE) > 0
    assert np.corrcoef(made[inside], written[inside])[0, 1] > 0.999
    assert made[inside].std() == pytest.approx(written[inside].std(), abs=0.05)


def test_a_fitted_method_sees_the_training_rows_alone(cohort, tmp_path: Path) -> None:
    from vesalius.cohorts.splits import Split

    rows = {row["key"]: row["files"][0] for row in Cohort.open(cohort).iter_rows(["key", "files"])}
    subsets = {key: "train" if "head3" in name else "test" for key, name in rows.items()}
    Split(subsets).save(tmp_path / "split.json")
    where = "files[1] LIKE '%head3%' OR files[1] LIKE '%head4%'"
    found = {}
    for name, split in (("all", None), ("train", tmp_path / "split.json")):
        result = normalize(
            cohort, to=tmp_path / name, method="nyul", where=where, split=split, workers=1
        )
        found[name] = result.normalizer.fitted
        assert result.counts["refused"] == 0
        assert all("promises no standard deviation" in c.notes[0] for c in result.certificates)
    assert found["all"].keys() == found["train"].keys()
    assert found["all"] != found["train"]
    with pytest.raises(CohortError, match="cannot be read as a split"):
        normalize(cohort, to=tmp_path / "x", split=tmp_path / "absent.json")


def test_wrong_arguments_are_named(cohort, tmp_path: Path) -> None:
    for wrong, words in (
        ({"method": "zscroe"}, "Did you mean 'zscore'"),
        ({"method": "combat"}, "works on tables of features"),
        ({"sd_tolerance": 0.0}, "sd_tolerance must lie between 0 and 1"),
        ({"sd_tolerance": float("nan")}, "sd_tolerance must lie between 0 and 1"),
        ({"format": "nifty"}, "Did you mean 'nifti'"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"method": "mad+macenko"}, "'macenko' works on the colors .* put it first"),
    ):
        with pytest.raises(UsageError, match=words):
            normalize(cohort, to=tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="must be a folder"):
            normalize(cohort, to=place)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("mad", {"clip": "wide"}, "option clip of 'mad' must be like 3.0, got 'wide'"),
        ("mad", {"clip": float("nan")}, "option clip of 'mad'"),
        ("mad", {"clip": True}, "option clip of 'mad'"),
        ("mad", {"clop": 3}, "Did you mean 'clip'"),
        ("percentile", {"low": 60.0, "high": 40}, r"'percentile' does not take low=60.0, high=40:"),
        ("nyul", {"percentiles": [99, 1]}, r"'nyul' does not take percentiles=\[99, 1\]:"),
        ("nyul", {"percentiles": 5}, "option percentiles of 'nyul'"),
        ("quantile", {"levels": 1}, "'quantile' does not take levels=1: levels must be at least 2"),
        ("window", {"counts": {}}, "takes the options step, got 'counts'"),
        ("n4+mad", {"iterations": [0]}, r"'n4' does not take iterations=\[0\]:"),
        ("n4", {"shrink": 1.5}, "option shrink of 'n4' must be like 4, got 1.5"),
        ("slice-chain", {"constrained": 1}, "must be like false, got 1"),
        ("slice-slope", {"axis": "x"}, "'slice-slope' does not take axis=\"x\":"),
        ("minc", {"bias": "n5"}, "bias must be n3, n4 or none, got 'n5'"),
        ("minc", {"chain": "xw"}, "chain must be letters of 'xyz'"),
        ("minc", {"ratio": "mean"}, "ratio must be one of"),
        ("minc", {"model": "brain.mnc"}, "takes the options bias, .*, got 'model'"),
        ("macenko", {"stains": [[1.0, 2.0], [3.0, 4.0]]}, "'macenko' does not take stains="),
        ("auto", {"clip": 3.0}, "'auto' takes the options none"),
    ],
)
def test_values_of_options_are_looked_at_before_the_work(
    method, options, words, cohort, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        normalize(cohort, to=tmp_path / "out", method=method, options=options)
    assert not (tmp_path / "out").exists()


def test_rows_that_are_none_are_named_and_do_not_lock_the_folder(cohort, data, tmp_path) -> None:
    from vesalius.cohorts.splits import Split

    out = tmp_path / "out"
    with pytest.raises(CohortError, match="no row matches where: modality = 'XX'"):
        normalize(cohort, to=out, where="modality = 'XX'")
    keys = [row["key"] for row in Cohort.open(cohort).iter_rows(["key"])]
    Split(dict.fromkeys(keys, "test")).save(tmp_path / "split.json")
    where = "files[1] LIKE '%head3%'"
    with pytest.raises(CohortError, match="none of the 1 rows is a training row"):
        normalize(cohort, to=out, where=where, split=tmp_path / "split.json")
    result = normalize(cohort, to=out, where=where, workers=1)
    assert result.counts["passed"] == 1


def test_a_scan_of_a_call_that_failed_does_not_mix_with_other_data(tmp_path, monkeypatch) -> None:
    for folder, count in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        for n in range(count):
            image = nib.Nifti1Image(head(n, SHAPE).astype(np.float32), np.eye(4))
            nib.save(image, tmp_path / folder / f"{folder}{n}.nii.gz")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
        with pytest.raises(BudgetError):
            normalize(tmp_path / "one", to=tmp_path / "out", workers=1)
    result = normalize(tmp_path / "two", to=tmp_path / "out", workers=1)
    assert sorted(result.files.values()) == ["two0.nii.gz", "two1.nii.gz"]


def test_a_rerun_makes_what_is_gone_and_reads_what_could_not_be_read(
    cohort, tmp_path: Path, monkeypatch
) -> None:
    from vesalius.cohorts import pool

    def died(self, tasks):
        for kind, items in tasks:
            yield kind, items, pool.Died()

    where = "files[1] LIKE '%head3%' OR files[1] LIKE '%constant%'"
    with monkeypatch.context() as patch:
        patch.setattr(pool.Pool, "run", died)
        first = normalize(cohort, to=tmp_path / "out", where=where)
    assert {one.reason for one in first.certificates} == {"limit-exceeded"}
    second = normalize(cohort, to=tmp_path / "out", where=where, workers=1)
    assert of(second, cohort, "head3").verdict == Verdict.PASSED
    assert of(second, cohort, "constant").reason == "constant"
    series = tmp_path / "out" / of(second, cohort, "head3").output
    before = content(tmp_path / "out")
    series.unlink()
    (refusal,) = [c.key for c in second.certificates if not c.output]
    untouched = (tmp_path / "out" / f"{refusal}.certificate.json").stat().st_mtime_ns
    third = normalize(cohort, to=tmp_path / "out", where=where, workers=1)
    assert third.certificates == second.certificates
    assert content(tmp_path / "out") == before
    kept = (tmp_path / "out" / f"{refusal}.certificate.json").stat().st_mtime_ns
    assert kept == untouched  # it was not read again


def test_series_are_written_in_the_format_asked_for(cohort, tmp_path: Path) -> None:
    result = normalize(
        cohort, to=tmp_path / "out", where="files[1] LIKE '%head3%'", format="minc2", workers=1
    )
    (certificate,) = result.certificates
    written = io.read(result.out / certificate.output)
    assert written.data[0][tissues(1, SHAPE) > 0].std() == pytest.approx(1, abs=0.05)


def test_a_row_that_kills_its_readers_is_refused_and_explained(
    cohort, tmp_path: Path, monkeypatch
) -> None:
    from vesalius.cohorts import pool

    def died(self, tasks):
        for kind, items in tasks:
            yield kind, items, pool.Died()

    monkeypatch.setattr(pool.Pool, "run", died)
    where = "files[1] LIKE '%head3%'"
    result = normalize(cohort, to=tmp_path / "out", where=where)
    assert [one.reason for one in result.certificates] == ["limit-exceeded"]
    assert explain(tmp_path / "out").certificates == result.certificates


# masks and units


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images with masks: one on its grid, one elsewhere, one without."""
    root = tmp_path_factory.mktemp("masked")
    for folder in ("images", "labels"):
        (root / "data" / folder).mkdir(parents=True)
    inner = np.zeros(SHAPE, np.uint8)
    inner[6:18, 6:20, 2:10] = 1
    for n, mask in enumerate((inner, inner[:, :, 2:], None)):
        name = f"case_{n:03}.nii.gz"
        image = nib.Nifti1Image(head(n, SHAPE).astype(np.float32), np.eye(4))
        nib.save(image, root / "data" / "images" / name)
        if mask is not None:
            nib.save(nib.Nifti1Image(mask, np.eye(4)), root / "data" / "labels" / name)
    scan(root / "data", out=root / "cohort", workers=1)
    return root / "cohort"


def test_given_masks_are_honored_and_one_off_the_grid_is_refused(masked, tmp_path: Path) -> None:
    result = normalize(masked, to=tmp_path / "out", masks=True, method="nyul", workers=1)
    found = {n: of_case(result, masked, n) for n in range(3)}
    assert found[0].mask["kind"] == "given"
    assert found[0].mask["voxels"] + found[0].mask["region_voxels"] == 12 * 14 * 8
    assert (found[1].verdict, found[1].reason) == (Verdict.REFUSED, "irregular-geometry")
    assert "does not lie on the grid" in found[1].message
    assert found[2].verdict == Verdict.PASSED
    assert found[2].mask["kind"] != "given"


def of_case(result, cohort: Path, number: int):
    rows = {row["key"]: row["files"][0] for row in Cohort.open(cohort).iter_rows(["key", "files"])}
    (one,) = [c for c in result.certificates if f"case_{number:03}" in rows[c.key]]
    return one


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    truth = write_phantom(
        root / "phantom", patients=1, seed=0, defects=False, modalities=("CT", "MR")
    )
    scan(truth.data, out=root / "cohort", workers=1)
    return root / "cohort"


def test_phantom_ct_keeps_every_voxel_and_mr_gets_one_scale(phantom: Path, tmp_path) -> None:
    result = normalize(phantom, to=tmp_path / "out", workers=2)
    assert result.counts["refused"] == 0
    assert {(c.modality, c.certified) for c in result.certificates} == {("CT", False), ("MR", True)}
    cohort = Cohort.open(phantom)
    for certificate in result.certificates:
        before = cohort.read(cohort.row(certificate.key))
        after = io.read(tmp_path / "out" / certificate.output)
        np.testing.assert_allclose(after.affine, before.affine, atol=1e-3)
        if certificate.modality == "CT":
            assert (certificate.verdict, certificate.unit) == (Verdict.FIXED, "HU")
            np.testing.assert_array_equal(after.data, before.data)
        else:
            assert certificate.sd == pytest.approx(1, abs=0.05)
    assert result.equivalence == ()  # one site


# in front of a network


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scanned cohort of 24 PNG images of differing brightness, one folder a class."""
    from PIL import Image

    root = tmp_path_factory.mktemp("stripes")
    rng = np.random.default_rng(0)
    for number in range(24):
        wave = np.repeat(np.sin(np.arange(24) * 0.9 + rng.uniform(0, 6))[None], 24, axis=0)
        pixels = rng.uniform(60, 190) + 40 * (wave if number % 2 else wave.T)
        pixels += rng.normal(0, 10, wave.shape)
        folder = root / "data" / ("along", "across")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03}.png")
    scan(root / "data", out=root / "cohort", workers=1)
    return root


@pytest.mark.parametrize("method", [pytest.param("zscore", marks=pytest.mark.slow), "nyul"])
def test_a_run_carries_its_normalizer_and_predict_uses_it(method, stripes, tmp_path: Path) -> None:
    from vesalius.flows.evaluate import evaluate
    from vesalius.flows.predict import predict
    from vesalius.flows.train import train
    from vesalius.tasks.views import make_views

    cohort = Cohort.open(stripes / "cohort")
    run = train(
        "classify", cohort, steps=2, model="resnet10", normalize=method, out=tmp_path / "run"
    )
    kept = Normalizer.load(run.path / "normalizer.json")
    served = {one.card.name for one in kept.fitted.values()} or {kept.method.card.name}
    assert served == {method}
    assert run.plan["request"]["normalize"] == run.decisions["normalization"] == method
    assert kept == run.normalizer()
    assert set(kept.fitted) == ({"unknown"} if method == "nyul" else set())

    evaluate(run.path, cohort)
    row = run.predictions().to_pandas().query("split == 'test'").iloc[0]
    exam = stripes / "data" / cohort.row(row["key"])["files"][0]
    in_training = make_views(cohort.read(cohort.row(row["key"])), run.decisions, kept)
    in_predicting = make_views(io.read(exam), run.decisions, kept)
    np.testing.assert_array_equal(in_predicting, in_training)
    other = make_views(io.read(exam), run.decisions, Normalizer(Percentile()))
    assert not np.array_equal(other, in_training)

    answer = predict(run.path, exam, out=tmp_path / "out")
    for name, value in answer.probabilities.items():
        assert value == pytest.approx(row[f"p_{name}"], abs=1e-6)
    record = json.loads((run.path / "normalizer.json").read_text())
    record["method"] = {"method": "mad", "clip": 0.1, "allowance": 0.04}
    record["fitted"] = {}
    (run.path / "normalizer.json").write_text(json.dumps(record))
    edited = predict(run.path, exam, out=tmp_path / "edited")
    assert edited.probabilities != answer.probabilities  # it is this record that predict obeys


def test_what_cannot_stand_in_front_of_a_network_is_refused(stripes, tmp_path: Path) -> None:
    from vesalius.flows.train import train

    for method in ("n4", "combat", "window"):
        with pytest.raises(UsageError, match="cannot stand in front of a network"):
            train("classify", stripes / "cohort", steps=1, normalize=method, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
