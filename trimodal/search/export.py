"""The three encoders as ONNX files, for places without PyTorch."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from trimodal.core.errors import UserError
from trimodal.core.files import atomic_path, temporary_folder, write_json
from trimodal.core.schemas import WORDS
from trimodal.models.preprocessing import normalise
from trimodal.search.encoder import Encoder, Points

Part = Literal["text", "image", "audio"]
AGREEMENT = 1e-4  # the largest difference of a number of a point that is let pass
_ROWS = 5  # of random inputs, on which the two are compared


class ExportError(UserError, RuntimeError):
    """The exported encoder says something else than ours, or what it takes is not installed."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file, and the largest difference of its points from ours on random inputs."""

    file: str
    difference: float


class _Pixels(nn.Module):
    """The image network with what comes before it: pixels as bytes, scaled as in training."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Uint8 (N, 3, crop, crop) RGB -> (N, 256)."""
        points: Tensor = self.network(normalise(pixels))
        return points


def export_encoders(encoder: Encoder, folder: Path) -> list[Exported]:
    """Writes ``text.onnx`` (int64 (N, 16) word ids), ``image.onnx`` (uint8 (N, 3, crop, crop) RGB)
    and ``audio.onnx`` (float32 (N, 1, mels, columns) windows in [-1, 1]), each to unit vectors
    float32 (N, 256), for any N; and ``encoders.json``, the facts one needs to feed them.

    Raises ExportError if a point differs from ours by more than 1e-4 or a package is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = [_export(part, encoder, folder) for part in parts_of(encoder)]
    write_json(folder / "encoders.json", asdict(encoder.checkpoint))
    return done


def parts_of(encoder: Encoder) -> dict[Part, nn.Module]:
    """The networks by name, on the CPU."""
    networks = encoder.networks.cpu().eval()
    return {"text": networks.text, "image": _Pixels(networks.image), "audio": networks.audio}


def example(part: Part, encoder: Encoder, rows: int) -> Tensor:
    """Random inputs of an encoder, ``rows`` of them."""
    made = torch.Generator().manual_seed(1)
    front_end, side = encoder.checkpoint.audio_front_end, encoder.checkpoint.augment.crop_px
    if part == "text":
        return torch.randint(0, encoder.words, (rows, WORDS), generator=made)
    if part == "image":
        return torch.randint(0, 256, (rows, 3, side, side), dtype=torch.uint8, generator=made)
    return torch.rand(rows, 1, front_end.mel.mels, front_end.columns, generator=made) * 2 - 1


def _export(part: Part, encoder: Encoder, folder: Path) -> Exported:
    path = folder / f"{part}.onnx"
    network = parts_of(encoder)[part]
    with temporary_folder() as scratch:
        draft = scratch / path.name
        try:
            torch.onnx.export(
                network, (example(part, encoder, 2),), draft,
                input_names=[part], output_names=["points"], external_data=False, verbose=False,
                dynamic_shapes=({0: torch.export.Dim("N")},),
            )  # fmt: skip
        except ImportError as error:
            raise ExportError(f"{error}; pip install 'trimodal[onnx]'") from error
        inputs = example(part, encoder, _ROWS)
        with torch.inference_mode():
            ours = network(inputs).numpy()
        difference = float(np.abs(run(draft, inputs) - ours).max())
        if not difference <= AGREEMENT:  # nor is a NaN
            raise ExportError(f"{part}: the exported encoder's points differ by {difference:.1e}")
        with atomic_path(path) as temporary:
            temporary.write_bytes(draft.read_bytes())
    return Exported(file=path.name, difference=difference)


def run(path: Path, inputs: Tensor) -> Points:
    """What an exported encoder says of inputs, (N, 256)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    points: Points = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]
    return points
