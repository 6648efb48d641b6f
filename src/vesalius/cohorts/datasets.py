# SPDX-License-Identifier: Apache-2.0
"""Public data sets by name: official address, published MD5, license; fetched or placed by hand.

MedMNIST v2 at 28 pixels (J. Yang et al., Scientific Data 10:41, 2023; Zenodo record 10519652).
"""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vesalius.errors import CorruptFile, UnavailableError, UsageError, did_you_mean
from vesalius.files import write_atomically
from vesalius.types import PathLike

ZENODO = "https://zenodo.org/records/10519652/files"
_TIMEOUT_S = 30.0
_CHUNK = 1 << 20
_LARGEST = 1 << 29  # bytes; the largest of these files has 210 MB


@dataclass(frozen=True, slots=True)
class Dataset:
    """One public file: `path` below its host, MD5 as its authors publish it, license."""

    path: str
    md5: str
    license: str = "CC BY 4.0"

    @property
    def filename(self) -> str:
        """The name of the file on disk."""
        return self.path.partition("?")[0]


def _medmnist(name: str, md5: str, license_: str = "CC BY 4.0") -> tuple[str, Dataset]:
    return f"medmnist:{name}", Dataset(f"{name}.npz?download=1", md5, license_)


DATASETS: dict[str, Dataset] = dict(
    (
        _medmnist("pathmnist", "a8b06965200029087d5bd730944a56c1"),
        _medmnist("chestmnist", "02c8a6516a18b556561a56cbdd36c4a8"),
        _medmnist("dermamnist", "0744692d530f8e62ec473284d019b0c7", "CC BY-NC 4.0"),
        _medmnist("octmnist", "c68d92d5b585d8d81f7112f81e2d0842"),
        _medmnist("pneumoniamnist", "28209eda62fecd6e6a2d98b1501bb15f"),
        _medmnist("retinamnist", "bd4c0672f1bba3e3a89f0e4e876791e4"),
        _medmnist("breastmnist", "750601b1f35ba3300ea97c75c52ff8f6"),
        _medmnist("bloodmnist", "7053d0359d879ad8a5505303e11de1dc"),
        _medmnist("tissuemnist", "ebe78ee8b05294063de985d821c1c34b"),
        _medmnist("organamnist", "68e3f8846a6bd62f0c9bf841c0d9eacc"),
        _medmnist("organcmnist", "b9ceb9546e10131b32923c5bbeaea2b1"),
        _medmnist("organsmnist", "9ab87b696fb54e2a387ebe992d6ed5f1"),
        _medmnist("organmnist3d", "a0c5a1ff56af4f155c46d46fbb45a2fe"),
        _medmnist("nodulemnist3d", "8755a7e9e05a4d9ce80a24c3e7a256f3"),
        _medmnist("adrenalmnist3d", "bbd3c5a5576322bc4cdfea780653b1ce"),
        _medmnist("fracturemnist3d", "6aa7b0143a6b42da40027a9dda61302f"),
        _medmnist("vesselmnist3d", "b41fd4f7e7e2feedddb201585ecafa1b"),
        _medmnist("synapsemnist3d", "1235b78a3cd6280881dd7850a78eadb6"),
    )
)


def fetch(name: str, out: PathLike, *, host: str = ZENODO) -> Path:
    """Return the file of the data set `name` in the folder `out`, downloaded if it is not there.

    A file that is there already, from an earlier call or placed by hand, is checked and returned;
    the network is not touched. A download gets its name only after its MD5 is right.

    Args:
        name: a key of `DATASETS`, for example `medmnist:breastmnist`.
        out: folder, created if need be.
        host: address of a mirror that has the same files.

    Raises:
        UsageError: unknown name.
        UnavailableError: the host cannot be reached; the message says how to place the file.
        CorruptFile: the bytes do not have the published MD5.
    """
    dataset = DATASETS.get(name)
    if dataset is None:
        raise UsageError(
            f"no data set is called '{name}'.{did_you_mean(name, DATASETS)} "
            f"Known are: {', '.join(DATASETS)}."
        )
    target = Path(out) / dataset.filename
    if target.exists():
        with open(target, "rb") as stream:
            _compare(_digest(stream), dataset, str(target), "Delete it and run the command again.")
        return target
    address = f"{host}/{dataset.path}"
    if not address.startswith(("https://", "http://")):
        raise UsageError(f"host must be an http or https address, got '{host}'.")
    return write_atomically(target, lambda stream: _download(address, dataset, target, stream))


def _download(address: str, dataset: Dataset, target: Path, stream: IO[bytes]) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    size = 0
    with closing(_chunks(address, dataset, target)) as chunks:
        for chunk in chunks:
            size += len(chunk)
            if size > _LARGEST:
                raise CorruptFile(f"more than {_LARGEST >> 20} MiB are sent.", path=address)
            digest.update(chunk)
            stream.write(chunk)
    _compare(digest.hexdigest(), dataset, address, "Nothing was kept; try again later.")


def _chunks(address: str, dataset: Dataset, target: Path) -> Generator[bytes, None, None]:
    try:
        # S310: the scheme was checked by `fetch`, only http and https get here.
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            while chunk := answer.read(_CHUNK):
                yield chunk
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the answer's connection
        reason = getattr(error, "reason", None) or error
        raise UnavailableError(
            f"{address} cannot be fetched ({reason}). Download it elsewhere, place it as {target} "
            f"and run the same command again: it is then checked (MD5 {dataset.md5}) and used."
        ) from error


def _digest(stream: IO[bytes]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _compare(got: str, dataset: Dataset, where: str, way_out: str) -> None:
    if got != dataset.md5:
        raise CorruptFile(
            f"MD5 is {got}, published is {dataset.md5}. {way_out}",
            path=where,
            md5=got,
            published=dataset.md5,
        )
