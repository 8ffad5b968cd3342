"""Stored features as training reads them: memory-mapped, and checked against what they are of."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimodal.core.files import read_json, write_json
from trimodal.core.fingerprint import file_fingerprint, fingerprint
from trimodal.core.records import DataError
from trimodal.data.shard_files import check_fingerprints
from trimodal.features.frozen import Frozen

FORMAT = 1
INDEX = "index.json"
BLOCK = 8192  # captions of a file
_AGAIN = "run the features stage again"
Files = dict[str, dict[str, Any]]  # by path in the folder: fingerprint, shape, what it is of
Numbers = npt.NDArray[np.integer[Any]]


def write_index(folder: Path, towers: Mapping[str, Any]) -> None:
    """Writes ``index.json``: for each tower its identity and its :data:`Files`."""
    content = {"format": FORMAT, **towers}
    write_json(folder / INDEX, {"fingerprint": fingerprint(content), **content})


def _read_index(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise DataError(f"{path}: missing, but model.freeze is not empty; {_AGAIN}")
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path}: not an index of features, format {FORMAT}; {_AGAIN}")
    if content.pop("fingerprint", None) != fingerprint(content):
        raise DataError(f"{path}: damaged: not as it was written; {_AGAIN}")
    return content


class FeatureFiles:
    """Arrays of features in files, memory-mapped when first read."""

    def __init__(self, paths: Sequence[Path], shapes: Sequence[Sequence[int]]) -> None:
        self._paths, self._shapes = list(paths), [tuple(shape) for shape in shapes]
        self._arrays: dict[int, npt.NDArray[np.float16]] = {}

    def read(self, files: Numbers, *indices: Numbers) -> Tensor:
        """Float16 (rows, features): row i is at ``indices`` (picture and view, or caption), each
        (rows,), of file ``files[i]``.
        """
        places = zip(files.tolist(), *(index.tolist() for index in indices), strict=True)
        rows = [self._array(file)[tuple(place)] for file, *place in places]
        return torch.from_numpy(np.stack(rows))

    def _array(self, file: int) -> npt.NDArray[np.float16]:
        if file not in self._arrays:
            path, shape = self._paths[file], self._shapes[file]
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except (ValueError, EOFError, SyntaxError, TokenError) as error:
                raise DataError(f"{path}: not a complete .npy file: {error}; {_AGAIN}") from error
            if array.dtype != np.float16 or array.shape != shape:
                raise DataError(
                    f"{path}: {array.dtype} {array.shape}, not float16 {shape}; {_AGAIN}"
                )
            self._arrays[file] = array
        return self._arrays[file]

    def __getstate__(self) -> dict[str, Any]:
        """Another process maps the files itself."""
        return vars(self) | {"_arrays": {}}


class PictureFeatures:
    """The views of the pictures of shards."""

    def __init__(self, files: FeatureFiles, views: int) -> None:
        self._files, self._views = files, views

    def training(
        self, shards: Numbers, pictures: Numbers, random: npt.NDArray[np.float32]
    ) -> Tensor:
        """Float16 (rows, features): of each picture the view that ``random``, in [0, 1), draws."""
        return self._files.read(shards, pictures, (random * self._views).astype(np.int64))

    def centre(self, shards: Numbers, pictures: Numbers) -> Tensor:
        """Float16 (rows, features): of each picture its centre."""
        return self._files.read(shards, pictures, np.zeros(len(pictures), np.int64))


class CaptionFeatures:
    """The features of the captions of ``captions.parquet``."""

    def __init__(self, files: FeatureFiles) -> None:
        self._files = files

    def rows(self, captions: Numbers) -> Tensor:
        """Float16 (captions, features), by the captions' rows in the table."""
        return self._files.read(captions // BLOCK, captions % BLOCK)


class FeatureStore:
    """What the stage ``features`` has left in a folder."""

    def __init__(self, folder: Path, identities: Mapping[Frozen, Mapping[str, Any]]) -> None:
        """Raises DataError, naming file and key, for features of other towers, views or code than
        ``identities``.
        """
        self._folder, self._path = folder, folder / INDEX
        self._index = _read_index(self._path)
        self._towers = frozenset(identities)
        #: Identifies the towers.
        self.fingerprint = fingerprint(identities)
        for tower, identity in identities.items():
            self._check_identity(tower, identity)

    def has(self, tower: Frozen) -> bool:
        """Whether that tower is frozen."""
        return tower in self._towers

    def _check_identity(self, tower: Frozen, expected: Mapping[str, Any]) -> None:
        if tower not in self._index:
            raise DataError(
                f"{self._path}: {tower}: missing, but model.freeze has {tower}; {_AGAIN}"
            )
        found = self._index[tower]["identity"]
        for key, value in expected.items():
            if found.get(key) != value:
                raise DataError(
                    f"{self._path}: {tower}.{key} is {found.get(key)!r}, but it should be "
                    f"{value!r}; {_AGAIN}"
                )

    def check_files(self, *, local_rank: int = 0, local_size: int = 1) -> None:
        """Hashes this process's share of the files, as
        :func:`~trimodal.data.shard_files.open_shards` does; raises DataError for the first that is
        missing or another.
        """
        files = [f for tower in sorted(self._towers) for f in self._files(tower).items()]
        expected = {self._folder / name: entry["fingerprint"] for name, entry in files}
        own = list(expected)[local_rank::local_size]
        threads = max(1, (os.cpu_count() or 1) // local_size)
        check_fingerprints({path: expected[path] for path in own}, threads)

    def _files(self, tower: str) -> Files:
        files: Files = self._index.get(tower, {}).get("files", {})
        return files

    def pictures(
        self,
        kind: Literal["av", "images"],
        shards: Sequence[Path],
        fingerprints: Mapping[Path, str],
        counts: Sequence[int],
    ) -> PictureFeatures:
        """The features of the pictures of ``shards``, ``counts`` of each, numbered by that order.
        Raises DataError if they are of other shards.
        """
        entries = []
        for shard, count in zip(shards, counts, strict=True):
            name = f"{kind}/{shard.stem}.npy"
            entry = self._files("image").get(name, {})
            found = (entry.get("of"), entry.get("shape", [0])[0])
            if found != (fingerprints[shard], count):
                raise DataError(
                    f"{self._path}: {name} is of shard {found[0]} with {found[1]} pictures, not of "
                    f"{shard}, {fingerprints[shard]} with {count}; {_AGAIN}"
                )
            entries.append((self._folder / name, entry["shape"]))
        views = self._index["image"]["identity"]["views"]
        return PictureFeatures(FeatureFiles(*_columns(entries)), views)

    def captions(self, table: Path) -> CaptionFeatures:
        """The features of the captions of a table. Raises DataError if they are of another."""
        found, expected = self._index["text"]["captions"], file_fingerprint(table)
        if found != expected:
            raise DataError(
                f"{self._path}: text.captions is {found}, but {table} is {expected}; {_AGAIN}"
            )
        files = sorted(self._files("text").items())
        entries = [(self._folder / name, entry["shape"]) for name, entry in files]
        return CaptionFeatures(FeatureFiles(*_columns(entries)))


def _columns(entries: Sequence[tuple[Path, list[int]]]) -> tuple[list[Path], list[list[int]]]:
    return [path for path, _ in entries], [shape for _, shape in entries]
