# SPDX-License-Identifier: Apache-2.0
"""Folders on an S3 API, against moto's server: whole or not at all, and as they were."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.s3_server import BUCKET, s3_server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vesalius.errors import DataError, UnavailableError, UsageError
from vesalius.tuning.object_store import ObjectStore, split_url

_NAMES = st.text("abc", min_size=1, max_size=3)
_FOLDERS = st.dictionaries(st.tuples(_NAMES, _NAMES).map("/".join), st.binary(max_size=200))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    pytest.importorskip("boto3", reason="boto3 is absent: pip install 'vesalius[cluster]'")
    pytest.importorskip("moto.server", reason="moto is absent: pip install 'moto[server]'")
    with pytest.MonkeyPatch.context() as patch, s3_server() as (address, variables):
        for name, value in variables.items():
            patch.setenv(name, value)
        yield address


@pytest.fixture
def store(endpoint: str, request: pytest.FixtureRequest) -> ObjectStore:
    return ObjectStore(f"s3://{BUCKET}/{request.node.name}", endpoint)


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@settings(
    deadline=None, max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(first=_FOLDERS, second=_FOLDERS)
def test_what_comes_back_is_what_was_put_last(
    store: ObjectStore,
    tmp_path_factory: pytest.TempPathFactory,
    first: dict[str, bytes],
    second: dict[str, bytes],
) -> None:
    for files in (first, second):
        here = fill(tmp_path_factory.mktemp("here"), files)
        assert store.put("run", here) == sum(map(len, files.values()))
        there = tmp_path_factory.mktemp("there")
        assert sorted(store.get("run", there)) == sorted(files)
        assert content(there) == files
        assert store.get("run", there) == []  # nothing is fetched twice


def test_what_is_there_is_not_sent_again(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = fill(tmp_path / "here", {"a": b"1" * 999, "cache/b": b"2", "log": b"one\n"})
    sent = []
    plain = store._client.upload_fileobj
    monkeypatch.setattr(
        store._client, "upload_fileobj", lambda *given: (sent.append(given[2]), plain(*given))
    )
    store.put("run", here, leave=("cache/*",))
    assert len(sent) == 2
    (here / "log").write_bytes(b"one\ntwo\n")
    store.put("run", here, leave=("cache/*",))
    assert len(sent) == 3
    assert set(store.files("run")) == {"a", "log"}
    assert store.get("run", tmp_path / "there", only=("l*",)) == ["log"]
    assert content(tmp_path / "there") == {"log": b"one\ntwo\n"}


def test_a_put_that_is_cut_short_leaves_the_old_folder(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = fill(tmp_path / "here", {"a": b"old", "b": b"old too"})
    store.put("run", here)
    fill(here, {"a": b"new", "b": b"new too"})
    plain, calls = store._client.upload_fileobj, []

    def once(*given: object) -> None:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        plain(*given)

    with monkeypatch.context() as patch:
        patch.setattr(store._client, "upload_fileobj", once)
        with pytest.raises(KeyboardInterrupt):
            store.put("run", here)
    store.get("run", tmp_path / "there")
    assert content(tmp_path / "there") == {"a": b"old", "b": b"old too"}


def test_dropped_files_go_and_their_equals_stay(store: ObjectStore, tmp_path: Path) -> None:
    files = {"model.safetensors": b"same", "networks/0/x": b"big", "copy": b"same", "m.json": b"{}"}
    store.put("run", fill(tmp_path / "here", files))
    store.drop("run", ("model.safetensors", "networks/*"))
    assert set(store.files("run")) == {"copy", "m.json"}
    store.get("run", tmp_path / "there")
    assert content(tmp_path / "there") == {"copy": b"same", "m.json": b"{}"}
    listed = store._client.list_objects_v2(Bucket=BUCKET, Prefix=f"{store.prefix}run/objects/")
    assert listed["KeyCount"] == 2
    store.drop("run", ("networks/*",))  # nothing left of it
    store.drop("unknown", ("*",))
    assert store.files("unknown") == {}


def test_damage_and_loss_are_found(store: ObjectStore, tmp_path: Path) -> None:
    store.put("run", fill(tmp_path / "here", {"a": b"right"}))
    key = store._key("run", store.files("run")["a"]["sha256"])
    store._client.put_object(Bucket=BUCKET, Key=key, Body=b"wrong")
    with pytest.raises(DataError, match="is damaged"):
        store.get("run", tmp_path / "there")
    assert content(tmp_path / "there") == {}
    store._client.delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(DataError, match="is missing"):
        store.get("run", tmp_path / "there")
    store._write("evil", {"../out": store.files("run")["a"]})
    with pytest.raises(DataError, match="has a file outside"):
        store.get("evil", tmp_path / "there")


def test_wrong_addresses_are_named(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert split_url("s3://bucket") == ("bucket", "")
    assert split_url("s3://bucket/a/b/") == ("bucket", "a/b/")
    for url in ("bucket/a", "s3:///a", "https://bucket", "s3://UPPER/a"):
        with pytest.raises(UsageError, match="s3://BUCKET/PREFIX"):
            split_url(url)
    with pytest.raises(UsageError, match="NoSuchBucket"):
        ObjectStore("s3://not-there/x", endpoint)
    with pytest.raises(UsageError, match="is no address"):
        ObjectStore("s3://bucket/x", "nonsense")
    with pytest.raises(UnavailableError, match="does not answer"):
        ObjectStore("s3://bucket/x", "http://127.0.0.1:1")
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(UsageError, match="needs credentials"):
        ObjectStore("s3://bucket/x", endpoint)
