"""Stage ``train``: trains on both streams and keeps the best epoch (docs/method.md, Training)."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from trimodal.core.fingerprint import code_fingerprint, file_fingerprint, fingerprint
from trimodal.core.machine import MachineConfig
from trimodal.core.progress import log
from trimodal.core.text import read_vocabulary
from trimodal.core.timing import window_fits
from trimodal.losses.config import LossConfig
from trimodal.media.windows import AudioFrontEnd
from trimodal.models.checkpoint import Checkpoint, save_checkpoint
from trimodal.models.config import ModelConfig
from trimodal.models.devices import pick_device
from trimodal.models.networks import build_network
from trimodal.models.preprocessing import AugmentConfig
from trimodal.training.config import TrainConfig
from trimodal.training.distributed import World
from trimodal.training.image_text import check_token_ids
from trimodal.training.leaks import LeaksConfig, check_leaks, find_leaks
from trimodal.training.loaders import batch_bytes, sharing_problems
from trimodal.training.loop import TrainingError, run_epochs
from trimodal.training.resume import ResumeError, Run, RunIdentity, load_run, save_run
from trimodal.training.streams import Streams, open_streams, reading_workers
from trimodal.training.trainer import Trainer


def train(
    av_dir: Path,
    captions_dir: Path,
    images_dir: Path,
    model_dir: Path,
    log_dir: Path,
    run_path: Path,
    *,
    config: TrainConfig,
    loss: LossConfig,
    model: ModelConfig,
    front_end: AudioFrontEnd,
    augment: AugmentConfig,
    leaks: LeaksConfig,
    machine: MachineConfig,
    world: World | None = None,
) -> None:
    """Trains and saves the epoch with the lowest validation loss; curves go to ``log_dir``.

    ``run_path`` holds the state of the run, unfinished or finished. A run that was killed resumes
    from it and ends with the same bytes. A run there with other params, data or code, or another
    number of ranks, is not resumed: the log says so and a new run starts. All ranks of ``world``
    call this and rank 0 writes; None is this process alone. Raises DataError, before the first
    step, if test videos are in the training data (section ``leaks``), and TrainingError as
    :func:`~trimodal.training.loop.run_epochs`.
    """
    world = world or World(device=pick_device(machine.device))
    check_leaks("train", find_leaks(av_dir, images_dir), leaks)
    torch.manual_seed(config.seed)
    vocabulary = read_vocabulary(captions_dir / "vocabulary.parquet")
    check_token_ids(captions_dir, len(vocabulary.words))
    streams = open_streams(
        av_dir, captions_dir, images_dir, config, front_end, augment, machine.shard_cache, world
    )
    samples = config.batch_size * world.local_size // world.size
    for problem in sharing_problems(
        batch_bytes(samples, augment.crop_px, front_end), machine.loader_workers
    ):
        log.info(f"train: {problem}; batches are copied through pipes instead, which is slower")
    network = build_network(model, vocabulary)
    trainer = Trainer(network, config, loss, world)
    if not world.is_main:  # weights are rank 0's, random numbers each rank's own
        seed = np.random.SeedSequence([config.seed, world.rank]).generate_state(1)
        torch.manual_seed(seed.item())
    data = _data_fingerprints(av_dir, captions_dir, images_dir)
    sections = [asdict(section) for section in (config, loss, model, front_end, augment)]
    identity = RunIdentity(
        params=fingerprint([world.size, _readers(config, machine), *sections]),
        data=fingerprint([data, network.text.tokenise.fingerprint]),
        code=code_fingerprint("trimodal.training.loop", "trimodal.training.streams"),
    )
    run = _open_run(run_path, identity, trainer)
    _check_same_step(run.step, world, run_path)

    def save() -> None:
        save_run(run_path, run, identity, trainer, world)

    run_epochs(trainer, streams, config, machine, log_dir, run, save, world)
    if not world.is_main:
        return
    checkpoint = Checkpoint(
        model=model,
        loss=asdict(loss),
        mel=front_end.mel,
        window=front_end.window,
        augment=augment,
        frame_px=streams.image_audio.frame_px,
        text_input=network.text.tokenise.fingerprint,
        towers=network.definitions,
        front_end=front_end.mel.front_end_fingerprint(),
        data=data,
        code=identity.code,
        epoch=run.best_epoch,
        validation_loss=run.best_loss,
    )
    save_checkpoint(
        model_dir, run.best_weights, checkpoint, vocabulary if model.has_vocabulary else None
    )
    _log_summary(run, streams, config, front_end, world)


def _readers(config: TrainConfig, machine: MachineConfig) -> int:
    """The number of loader workers, if the order of the samples depends on it."""
    return reading_workers(machine.loader_workers) if config.reader == "stream" else 0


def _data_fingerprints(av_dir: Path, captions_dir: Path, images_dir: Path) -> dict[str, str]:
    return {
        "av": file_fingerprint(av_dir / "index.parquet"),
        "images": file_fingerprint(images_dir / "index.parquet"),
        "captions": file_fingerprint(captions_dir / "captions.parquet"),
    }


def _log_summary(
    run: Run, streams: Streams, config: TrainConfig, front_end: AudioFrontEnd, world: World
) -> None:
    padded = sum(
        not window_fits(position.centre_seconds, front_end.window.seconds, clip.sound_s)
        for clip, position in streams.image_audio.first_positions()
    )
    log.info(
        f"train: {config.epochs} epochs on {world.size} x {world.device.type}, "
        f"{len(streams.image_audio)} clips ({padded} shorter than a window and padded), "
        f"{len(streams.image_text)} images; "
        f"best epoch {run.best_epoch}, validation loss {run.best_loss:.4f}"
    )


def _open_run(path: Path, identity: RunIdentity, trainer: Trainer) -> Run:
    if not path.exists():
        return Run()
    try:
        run = load_run(path, identity, trainer)
    except ResumeError as error:
        log.info(f"train: {error}; starting a new run")
        return Run()
    log.info(f"train: {path}: resumes after step {run.step}")
    return run


def _check_same_step(step: int, world: World, path: Path) -> None:
    steps = world.all_gather(torch.tensor([step], device=world.device)).tolist()
    if len(set(steps)) > 1:
        raise TrainingError(
            f"train: the processes would resume at different steps, {steps}: {path} must be on a "
            "disk that all machines share"
        )
