"""Training steps of the paper's image network against timm's ResNet-18:
``python -m benchmarks.timm_step`` (needs the extra ``towers``; some minutes).

Both train on the same images (COCO's where ``../shared/data`` has them), stored with 256 px, in
batches of the same size, with a loader process each: timm as its training script does by default
(``create_dataset``, ``create_loader``, ``create_model``, ``create_optimizer_v2``, label smoothing;
1,000 classes), with contiguous and with channels-last tensors (``--channels-last``); ours with the
captions, the text network and the loss, as in a run whose update is ``alternating``. Both from
their loaders and from a batch in memory, in turn, in one process. Prints Markdown rows: images a
second, and the CPU time of an image in the training process.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import cycle, islice, starmap
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.caption_corpus import make_corpus, photographs
from benchmarks.measuring import describe_machine, ratio, say, side_by_side
from benchmarks.training_step import sections_of
from trimodal.core.arguments import positive
from trimodal.core.text import read_vocabulary
from trimodal.data.readers import Pair
from trimodal.estimate import Sections
from trimodal.models.networks import build_network
from trimodal.preprocess.captions import prepare_captions
from trimodal.preprocess.image_shards import stored_jpeg
from trimodal.training.distributed import World
from trimodal.training.image_text import ImageTextPairs
from trimodal.training.loaders import training_loader
from trimodal.training.random_streams import RandomStream
from trimodal.training.rounds import ShuffledRounds
from trimodal.training.sampler import EndlessBatches
from trimodal.training.trainer import Trainer

CPU = torch.device("cpu")
BATCHES = 4  # that there are images for
TIMM, TIMM_CHANNELS_LAST, OURS = "timm", "timm, channels-last", "ours"


class ImageTextTrainer(Trainer):
    """Takes steps on the image-text stream alone."""

    def image_text_step(self, batch: Pair) -> None:
        """One update."""
        loss = self._loss_of("text", batch)
        self._update(loss)
        loss.item()


def main() -> None:
    """Stores the images, times all candidates in turn, prints the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--batch-size", type=positive, default=64)
    parser.add_argument("--steps", type=positive, default=2, help="in a round")
    parser.add_argument("--rounds", type=positive, default=3)
    args = parser.parse_args()
    with TemporaryDirectory(prefix="timm-step-") as name:
        folder = Path(name)
        sections = sections_of("paper", folder, args.batch_size, 1)
        candidates: dict[str, Callable[[], object]] = {}
        for source, steps in steps_from(sections, folder).items():
            candidates[source] = partial(run, steps, args.steps)
        timings = side_by_side(candidates, args.rounds)
    images = args.batch_size * args.steps
    say(f"{describe_machine()}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads; "
        f"batches of {args.batch_size}, {sections.augment.crop_px} px\n")  # fmt: skip
    say("| training | fed by | images/s | CPU ms an image | images/s, times timm's |")
    say("| --- | --- | ---: | ---: | ---: |")
    for source, timing in timings.items():
        network, _, feed = source.rpartition(" from ")
        times = 1 / ratio(timing.wall_s, timings[f"{TIMM} from {feed}"].wall_s)
        say(
            f"| {network} | {feed} | {images / timing.wall:.1f} | "
            f"{1000 * timing.cpu / images:.1f} | {times:.2f} |"
        )


def run(steps: Iterator[None], count: int) -> None:
    """Takes so many steps."""
    for _ in islice(steps, count):
        pass


def steps_from(sections: Sections, folder: Path) -> dict[str, Iterator[None]]:
    """Endless steps of each candidate, from its loader and from memory."""
    ours, batches = our_training(sections, folder)
    steps: dict[str, Iterator[None]] = {}
    for feed, source in fed(batches).items():
        steps[f"{OURS} from {feed}"] = map(ours.image_text_step, source)
    batch_size, crop_px = sections.train.batch_size, sections.augment.crop_px
    for name, layout in (
        (TIMM, torch.contiguous_format),
        (TIMM_CHANNELS_LAST, torch.channels_last),
    ):
        loader = timm_loader(folder / "classes", batch_size, crop_px)
        step = timm_step(layout)
        for feed, source in fed(loader).items():
            steps[f"{name} from {feed}"] = starmap(step, source)
    return steps


def fed(loader: Iterator[Any]) -> dict[str, Iterator[Any]]:
    """Batches of a loader, and its first one again and again."""
    return {"loaders": loader, "memory": cycle([next(loader)])}


def our_training(sections: Sections, folder: Path) -> tuple[ImageTextTrainer, Iterator[Pair]]:
    """A trainer and batches of stored images; the images also go into ``folder``/classes."""
    batch_size, side = sections.train.batch_size, sections.captions.image_px
    jpegs = photographs()
    config = make_corpus(folder / "corpus", BATCHES * batch_size + 20, jpegs)
    captions, images = folder / "captions", folder / "images"
    prepare_captions(replace(config, image_px=side), captions, images, sections.machine)
    pairs = ImageTextPairs(captions, images, "train", sections.augment, sections.train.seed)
    for number in range(BATCHES * batch_size):
        path = folder / "classes" / "train" / str(number % 2) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            stored_jpeg(jpegs[number % len(jpegs)], side, sections.captions.jpeg_quality)
        )
    network = build_network(sections.model, read_vocabulary(captions / "vocabulary.parquet"))
    trainer = ImageTextTrainer(network, sections.train, sections.loss, World(device=CPU))
    rounds = ShuffledRounds(len(pairs), batch_size, sections.train.seed, RandomStream.IMAGE_ORDER)
    return trainer, training_loader(pairs, EndlessBatches(rounds), workers=1)


def timm_loader(folder: Path, batch_size: int, crop_px: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches, as timm's train.py makes them of a folder of images."""
    from timm.data import create_dataset, create_loader

    dataset = create_dataset("", root=str(folder), split="train", is_training=True)
    loader = create_loader(
        dataset, input_size=(3, crop_px, crop_px), batch_size=batch_size, is_training=True,
        interpolation="random", num_workers=1, device=CPU, use_multi_epochs_loader=True,
    )  # fmt: skip
    while True:
        yield from loader


def timm_step(layout: torch.memory_format) -> Callable[[Tensor, Tensor], None]:
    """A step of timm's train.py with its default settings."""
    from timm import create_model
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2

    network: nn.Module = create_model("resnet18").to(memory_format=layout)
    network.train()
    optimiser = create_optimizer_v2(network, opt="sgd", lr=0.1, weight_decay=2e-5, momentum=0.9)
    loss_of = LabelSmoothingCrossEntropy(smoothing=0.1)

    def step(images: Tensor, classes: Tensor) -> None:
        value = loss_of(network(images.contiguous(memory_format=layout)), classes)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        value.item()

    return step


if __name__ == "__main__":
    main()
