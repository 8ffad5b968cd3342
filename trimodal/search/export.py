"""The three encoders as ONNX files, for use without PyTorch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from trimodal.core.errors import UserError
from trimodal.core.files import (
    remove,
    remove_stale_temporary_folders,
    temporary_folder,
    write_bytes,
    write_json,
)
from trimodal.core.schemas import WORDS
from trimodal.models.preprocessing import normalise
from trimodal.search.encoder import EmbeddingMatrix, Encoder

Part = Literal["text", "image", "audio"]
FILES = frozenset({"text.onnx", "image.onnx", "audio.onnx", "encoders.json"})
MAX_DIFFERENCE = 1e-4  # allowed in any element of an embedding
_ROWS = 5  # random inputs on which the two are compared


class ExportError(UserError, RuntimeError):
    """The exported encoder disagrees with PyTorch's, or a package is not installed."""


@dataclass(frozen=True, kw_only=True)
class ExportedEncoder:
    """A file, and the largest difference of its embeddings from PyTorch's on random inputs."""

    file: str
    difference: float


class _ImageEncoder(nn.Module):
    """The image network with its preprocessing: takes uint8 pixels, scales them as in training."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Uint8 (N, 3, crop, crop) RGB -> (N, 256)."""
        embeddings: Tensor = self.network(normalise(pixels))
        return embeddings


def export_encoders(encoder: Encoder, folder: Path) -> list[ExportedEncoder]:
    """Writes ``text.onnx`` (int64 (N, 16) word ids), ``image.onnx`` (uint8 (N, 3, crop, crop) RGB)
    and ``audio.onnx`` (float32 (N, 1, mels, columns) windows in [-1, 1]). Each outputs
    ``embeddings``, unit vectors float32 (N, 256), for any N. ``encoders.json`` has the settings
    needed to prepare their inputs. ``folder`` appears, or replaces that of an earlier export, when
    it is complete.

    Raises ExportError if an embedding differs from PyTorch's by more than 1e-4, if a package is
    missing, and if ``folder`` has other files in it.
    """
    remove_stale_temporary_folders()
    with _replacing(folder.absolute()) as complete:
        exported = [_export(part, encoder, complete) for part in parts_of(encoder)]
        write_json(complete / "encoders.json", asdict(encoder.checkpoint))
    return exported


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Yields an empty folder that replaces ``folder`` if the block succeeds. A kill leaves the old
    one, the new one or none.
    """
    folder = folder.resolve()
    if folder == Path.cwd() or (folder.exists() and not folder.is_dir()):
        raise ExportError(f"{folder}: cannot be replaced; name a new folder")
    if folder.is_dir() and (others := sorted({path.name for path in folder.iterdir()} - FILES)):
        raise ExportError(f"{folder}: has other files in it, {others[0]!r}; name a new folder")
    new, old = (folder.with_name(f".{folder.name}.{which}.tmp") for which in ("new", "old"))
    try:
        for leftover in (new, old):
            remove(leftover)
        new.mkdir(parents=True)
        yield new
        if folder.is_dir():
            folder.rename(old)
        new.rename(folder)
    finally:
        for leftover in (new, old):
            remove(leftover)


def parts_of(encoder: Encoder) -> dict[Part, nn.Module]:
    """The networks by name, on the CPU."""
    networks = encoder.networks.cpu().eval()
    return {"text": networks.text, "image": _ImageEncoder(networks.image), "audio": networks.audio}


def example(part: Part, encoder: Encoder, rows: int) -> Tensor:
    """Random inputs for an encoder, (rows, ...)."""
    generator = torch.Generator().manual_seed(1)
    front_end, side = encoder.checkpoint.audio_front_end, encoder.checkpoint.augment.crop_px
    if part == "text":
        return torch.randint(0, encoder.words, (rows, WORDS), generator=generator)
    if part == "image":
        return torch.randint(0, 256, (rows, 3, side, side), dtype=torch.uint8, generator=generator)
    return torch.rand(rows, 1, front_end.mel.mels, front_end.columns, generator=generator) * 2 - 1


def _export(part: Part, encoder: Encoder, folder: Path) -> ExportedEncoder:
    path = folder / f"{part}.onnx"
    network = parts_of(encoder)[part]
    with temporary_folder() as scratch:
        unchecked = scratch / path.name
        try:
            torch.onnx.export(
                network, (example(part, encoder, 2),), unchecked,
                input_names=[part], output_names=["embeddings"], external_data=False, verbose=False,
                dynamic_shapes=({0: torch.export.Dim("N")},),
            )  # fmt: skip
        except ImportError as error:
            raise ExportError(f"{error}; pip install 'trimodal[onnx]'") from error
        inputs = example(part, encoder, _ROWS)
        with torch.inference_mode():
            expected = network(inputs).numpy()
        difference = float(np.abs(run(unchecked, inputs) - expected).max())
        if not difference <= MAX_DIFFERENCE:  # also refuses NaN
            raise ExportError(f"{part}: ONNX and PyTorch embeddings differ by {difference:.1e}")
        write_bytes(path, unchecked.read_bytes())
    return ExportedEncoder(file=path.name, difference=difference)


def run(path: Path, inputs: Tensor) -> EmbeddingMatrix:
    """An exported encoder's embeddings of the inputs, (N, 256)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    embeddings: EmbeddingMatrix = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[
        0
    ]
    return embeddings
