"""The exported ONNX encoders against PyTorch: ``python -m benchmarks.onnx_speed``.

Exports networks of paper scale with random weights (of the demo's with ``--scale demo``) and runs
them in turn with ONNX Runtime and with PyTorch on this machine's CPU, both on all its cores. Prints
a Markdown table: median milliseconds, and medians of the ratios within a round.
"""

import argparse
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from benchmarks.measuring import (
    SCALES,
    describe_machine,
    params_at,
    ratio,
    say,
    side_by_side,
)
from trimodal.core.arguments import positive
from trimodal.core.config import load_section
from trimodal.core.language import tokeniser_of
from trimodal.core.schemas import VECTOR_DIM
from trimodal.core.text import Vocabulary
from trimodal.losses.config import LossConfig
from trimodal.media.mel import MelConfig
from trimodal.media.windows import WindowConfig
from trimodal.models.checkpoint import Checkpoint, save_checkpoint
from trimodal.models.config import ModelConfig
from trimodal.models.networks import TrimodalNet
from trimodal.models.preprocessing import AugmentConfig
from trimodal.search.encoder import Encoder
from trimodal.search.export import Part, example, export_encoders, parts_of

WORDS = 1000


def main() -> None:
    """Exports the encoders, times both runtimes in turn, prints the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--scale", choices=SCALES, default="paper")
    parser.add_argument("--rounds", type=positive, default=11)
    args = parser.parse_args()
    with TemporaryDirectory(prefix="onnx-") as name:
        folder = Path(name)
        encoder = random_encoder(folder, args.scale)
        say(f"{describe_machine()}, PyTorch {torch.__version__}, ONNX Runtime "
            f"{onnxruntime.__version__}; networks of {args.scale} scale\n")  # fmt: skip
        say("| encoder | rows | PyTorch | ONNX Runtime | times as fast | largest difference |")
        say("| --- | ---: | ---: | ---: | ---: | ---: |")
        differences = {
            exported.file: exported.difference for exported in export_encoders(encoder, folder)
        }
        for part in parts_of(encoder):
            for rows in (1, 32):
                compare(encoder, folder, part, rows, args.rounds, differences[f"{part}.onnx"])


def random_encoder(folder: Path, scale: str) -> Encoder:
    """An untrained encoder of this scale."""
    params = params_at(scale, folder)
    model = load_section(params, "model", ModelConfig)
    blank = replace(model, image_weights="none", audio_weights="none")
    vectors = np.random.default_rng(1).standard_normal((WORDS, VECTOR_DIM)).astype(np.float32)
    vectors[:2] = 0
    words = ("<padding>", "<unknown>", *(f"word{'ab'[n % 2]}{n}" for n in range(WORDS - 2)))
    vocabulary = Vocabulary(words, vectors, tokeniser_of("english"))
    mel = load_section(params, "mel", MelConfig)
    checkpoint = Checkpoint(
        model=blank, loss=asdict(load_section(params, "loss", LossConfig)), mel=mel,
        window=load_section(params, "window", WindowConfig),
        augment=load_section(params, "augment", AugmentConfig), frame_px=256,
        text_input=vocabulary.fingerprint, towers={}, front_end=mel.front_end_fingerprint(),
        data={}, code="", epoch=1, validation_loss=1.0,
    )  # fmt: skip
    network = TrimodalNet(blank, torch.from_numpy(vectors))
    save_checkpoint(folder / "model", network.state_dict(), checkpoint, vocabulary)
    return Encoder.from_pretrained(folder / "model", device="cpu")


def compare(
    encoder: Encoder, folder: Path, part: Part, rows: int, rounds: int, difference: float
) -> None:
    """Prints one line of the table."""
    inputs = example(part, encoder, rows)
    session = onnxruntime.InferenceSession(
        folder / f"{part}.onnx", providers=["CPUExecutionProvider"]
    )
    timings = side_by_side(
        {
            "PyTorch": partial(run, parts_of(encoder)[part], inputs),
            "ONNX": partial(session.run, None, {part: inputs[0].numpy()}),
        },
        rounds,
    )
    ours, exported = timings["PyTorch"], timings["ONNX"]
    say(
        f"| {part} | {rows} | {ours.wall * 1e3:.1f} ms | {exported.wall * 1e3:.1f} ms "
        f"| {ratio(ours.wall_s, exported.wall_s):.2f} | {difference:.0e} |"
    )


@torch.inference_mode()
def run(network: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """PyTorch's embeddings."""
    embeddings: Tensor = network(*inputs)
    return embeddings


if __name__ == "__main__":
    main()
