# SPDX-License-Identifier: Apache-2.0
"""Folders on an S3 API: what trials make, for machines that share no path.

A file is an object named by its SHA-256. A folder is a list of its files, written after they are
there and in one request: who reads it sees the old folder or the new one, whole. What comes back is
checked against its hash.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vesalius.errors import DataError, UnavailableError, UsageError
from vesalius.files import write_atomically
from vesalius.optional import require
from vesalius.types import Json

PURPOSE = "keeping artifacts on an S3 API"
_CONNECT, _READ, _TRIES = 10, 60, 4  # seconds, seconds, attempts of a request
_REGION = "us-east-1"  # of a store of one's own, which has none
_GONE = ("404", "NoSuchKey", "NotFound")


class ObjectStore:
    """The folders below a prefix of a bucket."""

    def __init__(self, url: str, endpoint: str | None = None) -> None:
        """Open a store; credentials come from where AWS' tools look for them.

        Args:
            url: `s3://BUCKET/PREFIX`.
            endpoint: of the S3 API; None for that of AWS.

        Raises:
            UsageError: no address, or a bucket that is not there or not allowed.
            UnavailableError: the store does not answer.
        """
        boto3 = require("boto3", PURPOSE)
        self._errors = require("botocore.exceptions", PURPOSE)
        self.url, self.endpoint = url, endpoint
        self.bucket, self.prefix = split_url(url)
        if endpoint is not None:  # no machine of Amazon's is asked for credentials then
            os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
        settings = require("botocore.config", PURPOSE).Config(
            connect_timeout=_CONNECT,
            read_timeout=_READ,
            retries={"mode": "standard", "total_max_attempts": _TRIES},
        )
        region = None if endpoint is None else os.environ.get("AWS_DEFAULT_REGION", _REGION)
        try:
            self._client = boto3.session.Session().client(
                "s3", endpoint_url=endpoint, region_name=region, config=settings
            )
        except ValueError as error:
            raise UsageError(f"the endpoint '{endpoint}' is no address: {error}") from error
        with self._told():
            self._client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1)

    def put(self, name: str, folder: Path, *, leave: Sequence[str] = ()) -> int:
        """Keep a folder as it is, and return its bytes; what is there already is not sent again.

        Args:
            name: of the folder in the store; what was kept under it is replaced.
            folder: here.
            leave: patterns of paths that stay here.
        """
        before = {one["sha256"] for one in self.files(name).values()}
        files: Json = {}
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder).as_posix()
            if path.is_file() and not _matches(relative, leave):
                with contextlib.suppress(FileNotFoundError):  # it went meanwhile
                    files[relative] = self._put_file(name, path, before)
        self._write(name, files)
        return sum(one["bytes"] for one in files.values())

    def get(self, name: str, folder: Path, *, only: Sequence[str] = ("*",)) -> list[str]:
        """Bring a folder's files here, as far as they are not here; return those that came.

        Raises:
            DataError: one is missing in the store, or damaged.
        """
        came = []
        for relative, one in self.files(name).items():
            to = folder / relative
            if not _matches(relative, only) or _is(to, one["sha256"]):
                continue
            if not to.resolve().is_relative_to(folder.resolve()):
                raise DataError(f"the folder {name} of {self.url} has a file outside: {relative}")
            with self._told():
                found = self._client.get_object(
                    Bucket=self.bucket, Key=self._key(name, one["sha256"])
                )["Body"]

                def checked(stream: Any, found: Any = found, one: Json = one) -> None:
                    total = hashlib.sha256()
                    for part in found.iter_chunks(1 << 20):
                        total.update(part)
                        stream.write(part)
                    if total.hexdigest() != one["sha256"]:
                        raise DataError(
                            f"an object of {name} in {self.url} is damaged; remove the folder "
                            "there, and the trial is made again"
                        )

                write_atomically(to, checked)
            came.append(relative)
        return came

    def files(self, name: str) -> Json:
        """Return path -> `sha256`, `bytes` of a folder; empty where there is none."""
        with self._told():
            try:
                found = self._client.get_object(Bucket=self.bucket, Key=self._list(name))
                held: Json = json.loads(found["Body"].read())
            except self._errors.ClientError as error:
                if error.response["Error"]["Code"] in _GONE:
                    return {}
                raise
        return held

    def drop(self, name: str, patterns: Sequence[str]) -> None:
        """Remove files of a folder; what else has the same content stays."""
        files = self.files(name)
        left = {path: one for path, one in files.items() if not _matches(path, patterns)}
        if len(left) == len(files):
            return
        self._write(name, left)
        kept = {one["sha256"] for one in left.values()}
        for digest in {one["sha256"] for one in files.values()} - kept:
            with self._told():
                self._client.delete_object(Bucket=self.bucket, Key=self._key(name, digest))

    def _put_file(self, name: str, path: Path, there: set[str]) -> Json:
        with open(path, "rb") as stream:  # one opening: a file that is replaced stays whole
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.tell()
            if digest not in there:
                stream.seek(0)
                with self._told():
                    body = _Exactly(stream, size)
                    self._client.upload_fileobj(body, self.bucket, self._key(name, digest))
                there.add(digest)
        return {"sha256": digest, "bytes": size}

    def _write(self, name: str, files: Json) -> None:
        body = json.dumps(files, sort_keys=True).encode()
        with self._told():
            self._client.put_object(Bucket=self.bucket, Key=self._list(name), Body=body)

    def _list(self, name: str) -> str:
        return f"{self.prefix}{name}/files.json"

    def _key(self, name: str, digest: str) -> str:
        return f"{self.prefix}{name}/objects/{digest}"

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say what went wrong at the store, and what to do."""
        errors = self._errors
        try:
            yield
        except (errors.NoCredentialsError, errors.PartialCredentialsError) as error:
            raise UsageError(
                f"{self.url} needs credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or AWS_PROFILE, on every machine"
            ) from error
        except errors.ClientError as error:
            code = error.response["Error"]["Code"]
            if code in ("NoSuchBucket", "AccessDenied", "403", "InvalidAccessKeyId"):
                raise UsageError(
                    f"the store refuses {self.url} ({code}); check the bucket's name and the "
                    "credentials"
                ) from error
            if code in _GONE:
                raise DataError(
                    f"an object of {self.url} is missing ({code}); remove its folder there, and "
                    "the trial is made again"
                ) from error
            raise UnavailableError(f"the store of {self.url} fails: {error}") from error
        except (errors.BotoCoreError, errors.HTTPClientError) as error:
            where = self.endpoint or "AWS"
            raise UnavailableError(
                f"the store at {where} does not answer ({error}); check --endpoint, then the same "
                "command goes on where this stopped"
            ) from error


class _Exactly:
    """A stream's first bytes, so that a file that grows is kept as it was hashed."""

    def __init__(self, stream: Any, size: int) -> None:
        self._stream, self._left = stream, size

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size is None or size < 0 else min(size, self._left)
        found: bytes = self._stream.read(wanted)
        self._left -= len(found)
        return found


def split_url(url: str) -> tuple[str, str]:
    """Return bucket and prefix, the latter empty or ending with a slash.

    Raises:
        UsageError: it is no `s3://BUCKET/PREFIX`.
    """
    found = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?", url)
    if found is None:
        raise UsageError(f"artifacts are kept at s3://BUCKET/PREFIX; got '{url}'")
    prefix = (found[2] or "").strip("/")
    return found[1], f"{prefix}/" if prefix else ""


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _is(path: Path, digest: str) -> bool:
    if not path.exists():
        return False
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == digest
