"""The three encoders as ONNX files with all that their use takes, without PyTorch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from trimodal.core.arguments import missing_packages
from trimodal.core.files import (
    remove_stale_temporary_folders,
    temporary_folder,
    write_bytes,
    write_json,
    write_text,
)
from trimodal.core.schemas import VECTOR_DIM, WORDS
from trimodal.core.text import Vocabulary
from trimodal.media.spectrogram import mel_filters
from trimodal.models.networks import VisionNet
from trimodal.search.encoder import EmbeddingMatrix, Encoder
from trimodal.search.replacing import ExportError, replacing

Part = Literal["text", "image", "audio"]
SETTINGS, WORD_LIST, NGRAMS, FILTERS = (
    "encoders.json",
    "words.json",
    "ngrams.npy",
    "mel_filters.npy",
)
EXAMPLE = "example.py"
FILES = frozenset(
    {"text.onnx", "image.onnx", "audio.onnx", SETTINGS, WORD_LIST, NGRAMS, FILTERS, EXAMPLE}
)
_NOT_EXPORTED = (
    "the tokeniser of the text network's library is not exported: text.onnx takes its token ids"
)
MAX_DIFFERENCE = 1e-4  # allowed in any element of an embedding
_ROWS = 5  # random inputs on which the two are compared


@dataclass(frozen=True, kw_only=True)
class ExportedEncoder:
    """A file, and the largest difference of its embeddings from PyTorch's on random inputs."""

    file: str
    difference: float


class _ImageEncoder(nn.Module):
    """The image network with its preprocessing: takes uint8 pixels, scales them as in training."""

    def __init__(self, network: VisionNet) -> None:
        super().__init__()
        self.network = network
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Uint8 (N, 3, crop, crop) RGB -> (N, dim)."""
        embeddings: Tensor = self.network(self.network.prepare(pixels))
        return embeddings


def export_encoders(encoder: Encoder, folder: Path) -> list[ExportedEncoder]:
    """Writes ``text.onnx`` (int64 (N, 16) word ids), ``image.onnx`` (uint8 (N, 3, crop, crop) RGB)
    and ``audio.onnx`` (float32 (N, 1, mels, columns) windows in [-1, 1]). Each outputs
    ``embeddings``, unit vectors float32 (N, dim), for any N. Beside them is all that preparing
    their inputs takes, in files that NumPy and Python read: ``encoders.json``, the settings, among
    them how sentences are split into words; ``words.json``, the words by their ids, and n-grams;
    ``mel_filters.npy``, the mel's filter bank, (frequencies, mels); and ``example.py``, which
    answers a query with NumPy and onnxruntime alone. Where words without a vector get one from
    their spelling, ``text.onnx`` has a second input, ``further``: their vectors, float32 (M, 300)
    (M >= 1), which ids from the number of words up stand for
    (:meth:`trimodal.core.text.Vocabulary.encode`), and ``ngrams.npy`` what they are made of. The
    tokeniser of a pretrained text tower is not exported. ``folder`` appears, or replaces that of an
    earlier export, when it is complete.

    Raises ExportError if an embedding differs from PyTorch's by more than 1e-4, if a package is
    missing, and if ``folder`` has other files in it.
    """
    if missing := missing_packages("onnx", "onnxruntime", "onnxscript"):
        raise ExportError(f"{missing[0]} is not installed: pip install 'trimodal[onnx]'")
    remove_stale_temporary_folders()
    with replacing(folder, FILES) as complete:
        exported = [_export(part, encoder, complete) for part in parts_of(encoder)]
        write_json(complete / SETTINGS, asdict(encoder.checkpoint) | _text_settings(encoder))
        _write_words(encoder.vocabulary, complete)
        np.save(complete / FILTERS, mel_filters(encoder.checkpoint.mel), allow_pickle=False)
        example = Path(__file__).with_name("onnx_example.py")
        write_text(complete / EXAMPLE, example.read_text(encoding="utf-8"))
    return exported


def _text_settings(encoder: Encoder) -> dict[str, Any]:
    """How sentences become ids, for a vocabulary of words."""
    if encoder.vocabulary is None:
        return {"not_exported": _NOT_EXPORTED}
    tokeniser = encoder.vocabulary.tokeniser
    words = {
        "language": tokeniser.language,
        "pattern": tokeniser.pattern,
        "stop_words": sorted(tokeniser.stop_words),
        "rows": len(encoder.vocabulary.words),
    }
    return {"words": words}


def _write_words(vocabulary: Vocabulary | None, folder: Path) -> None:
    if vocabulary is None:
        return
    subwords = vocabulary.subwords
    ngrams = subwords.ngrams if subwords else ()
    write_json(folder / WORD_LIST, {"words": vocabulary.words, "ngrams": ngrams})
    if subwords:
        np.save(folder / NGRAMS, subwords.vectors, allow_pickle=False)


def parts_of(encoder: Encoder) -> dict[Part, nn.Module]:
    """The networks by name, on the CPU."""
    networks = encoder.networks.cpu().eval()
    return {"text": networks.text, "image": _ImageEncoder(networks.image), "audio": networks.audio}


def example(part: Part, encoder: Encoder, rows: int) -> tuple[Tensor, ...]:
    """Random inputs for an encoder, (rows, ...)."""
    generator = torch.Generator().manual_seed(1)
    front_end, side = encoder.checkpoint.audio_front_end, encoder.checkpoint.augment.crop_px
    if part == "text":
        if encoder.vocabulary is None:
            tokenise = encoder.networks.text.tokenise
            return (tokenise.encode(["a dog barks", "rain on a roof", "music"] * rows).ids[:rows],)
        count = len(encoder.vocabulary.words)
        if encoder.vocabulary.subwords is None:
            return (torch.randint(0, count, (rows, WORDS), generator=generator),)
        ids = torch.randint(0, count + rows, (rows, WORDS), generator=generator)
        ids[:, 0] = count + rows - 1  # also in a vocabulary of many words
        return ids, torch.randn(rows, VECTOR_DIM, generator=generator)
    if part == "image":
        shape = (rows, 3, side, side)
        return (torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),)
    shape = (rows, 1, front_end.mel.mels, front_end.columns)
    return (torch.rand(shape, generator=generator) * 2 - 1,)


def _export(part: Part, encoder: Encoder, folder: Path) -> ExportedEncoder:
    path = folder / f"{part}.onnx"
    network = parts_of(encoder)[part]
    with temporary_folder() as scratch:
        unchecked = scratch / path.name
        inputs = example(part, encoder, 2)
        torch.onnx.export(
            network, inputs, unchecked, external_data=False, verbose=False,
            input_names=[part, "further"][: len(inputs)], output_names=["embeddings"],
            dynamic_shapes=[{0: torch.export.Dim(name)} for name in "NM"[: len(inputs)]],
        )  # fmt: skip
        inputs = example(part, encoder, _ROWS)
        with torch.inference_mode():
            expected = network(*inputs).numpy()
        difference = float(np.abs(run(unchecked, inputs) - expected).max())
        if not difference <= MAX_DIFFERENCE:  # also refuses NaN
            raise ExportError(f"{part}: ONNX and PyTorch embeddings differ by {difference:.1e}")
        write_bytes(path, unchecked.read_bytes())
    return ExportedEncoder(file=path.name, difference=difference)


def run(path: Path, inputs: Sequence[Tensor]) -> EmbeddingMatrix:
    """An exported encoder's embeddings of the inputs, (N, dim)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    arrays = dict(zip(names, (array.numpy() for array in inputs), strict=True))
    embeddings: EmbeddingMatrix = session.run(None, arrays)[0]
    return embeddings
