"""Stage ``train``: trains on both streams and keeps the best epoch (docs/method.md, Training)."""

from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trimodal.core.files import read_json, write_text
from trimodal.core.fingerprint import code_fingerprint, file_fingerprint, fingerprint
from trimodal.core.machine import MachineConfig
from trimodal.core.progress import log
from trimodal.core.text import Vocabulary, read_vocabulary
from trimodal.core.timing import window_fits
from trimodal.features.config import FeaturesConfig
from trimodal.features.frozen import LEARNING_PARTS, FrozenTowers, tower_fingerprint
from trimodal.features.store import FeatureStore
from trimodal.losses.config import LossConfig
from trimodal.media.windows import AudioFrontEnd
from trimodal.models.checkpoint import CARD, CONFIG, Checkpoint, save_checkpoint
from trimodal.models.config import ModelConfig
from trimodal.models.devices import pick_device
from trimodal.models.model_card import model_card
from trimodal.models.networks import TrimodalNet
from trimodal.models.preprocessing import AugmentConfig
from trimodal.models.warm_start import init_fingerprint, initial_network
from trimodal.training.caption_inputs import check_token_ids
from trimodal.training.config import TrainConfig
from trimodal.training.distributed import World
from trimodal.training.epoch_log import epoch_log
from trimodal.training.image_text import has_captions
from trimodal.training.leaks import LeaksConfig, check_leaks, find_leaks
from trimodal.training.loaders import batch_bytes, sharing_problems
from trimodal.training.loop import TrainingError, run_epochs
from trimodal.training.resume import ResumeError, Run, RunIdentity, load_run, save_run
from trimodal.training.start import check_captions, check_loggers, check_start
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
    features: tuple[Path, FeaturesConfig] | None = None,
    world: World | None = None,
) -> None:
    """Trains and saves the epoch that ``train.select_by`` chooses; curves go to ``log_dir``.

    ``run_path`` holds the state of the run, unfinished or finished. A run that was killed resumes
    from it and ends with the same bytes. A run there with other params, data or code, or another
    number of ranks, is not resumed: the log says so and a new run starts. All ranks of ``world``
    call this and rank 0 writes; None is this process alone. Where ``model.freeze`` names towers,
    ``features`` are needed: the folder of what they make of the data, and its section. Raises
    DataError, before the first step, if test videos are in the training data (section ``leaks``)
    and for features of other towers or data, and TrainingError as
    :func:`~trimodal.training.loop.run_epochs`.
    """
    world = world or World(device=pick_device(machine.device))
    check_loggers(config.loggers)
    check_start(model, model_dir)
    check_leaks("train", find_leaks(av_dir, images_dir), leaks)
    vocabulary = _vocabulary(captions_dir, model)
    torch.manual_seed(config.seed)
    network = initial_network(model, vocabulary)
    pretrained = _pretrained_fingerprints(network, model)
    store = None
    if model.freeze:
        if features is None:
            raise ValueError("model.freeze needs features")
        folder, section = features
        towers = FrozenTowers(
            model=model, config=section, augment=augment, captions_dir=captions_dir
        )
        store = _freeze(network, towers, folder)
    streams = open_streams(
        av_dir, captions_dir, images_dir, config, front_end, augment, machine.shard_cache, world,
        tokenise=None if model.has_vocabulary else network.text.tokenise, features=store,
    )  # fmt: skip
    samples = config.batch_size * world.local_size // world.size
    for problem in sharing_problems(
        batch_bytes(samples, augment.crop_px, front_end), machine.loader_workers
    ):
        log.info(f"train: {problem}; batches are copied through pipes instead, which is slower")
    trainer = Trainer(network, config, loss, world, model.freeze)
    if not world.is_main:  # weights are rank 0's, random numbers each rank's own
        seed = np.random.SeedSequence([config.seed, world.rank]).generate_state(1)
        torch.manual_seed(seed.item())
    data = _data_fingerprints(av_dir, captions_dir, images_dir)
    without_loggers = replace(config, loggers=())
    sections = [asdict(section) for section in (without_loggers, loss, model, front_end, augment)]
    others: list[Any] = [init_fingerprint(model), store and store.fingerprint, pretrained]
    identity = RunIdentity(
        params=fingerprint([world.size, _readers(config, machine), *sections]),
        data=fingerprint([data, network.text.tokenise.fingerprint, *filter(None, others)]),
        code=code_fingerprint("trimodal.training.loop", "trimodal.training.streams"),
    )
    run = _open_run(run_path, identity, trainer)
    _check_same_step(run.step, world, run_path)

    def save() -> None:
        save_run(run_path, run, identity, trainer, world)

    with ExitStack() as stack:
        logged = None
        if world.is_main:
            name = fingerprint(asdict(identity))
            logged = stack.enter_context(
                epoch_log(log_dir, config.loggers, run_path.parent / "loggers", name)
            )
        run_epochs(trainer, streams, config, machine, logged, run, save, world)
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
        model_dir,
        trainer.frozen_weights() | run.best_weights,
        checkpoint,
        vocabulary if model.has_vocabulary else None,
    )
    language = vocabulary.tokeniser.language if vocabulary else None
    write_text(model_dir / CARD, model_card(read_json(model_dir / CONFIG), language=language))
    _log_summary(run, streams, config, front_end, world)


def _vocabulary(captions_dir: Path, model: ModelConfig) -> Vocabulary | None:
    """The captions' vocabulary, if the text network needs one. Raises DataError if word ids are not
    of it, and without captions if the text network would have to learn.
    """
    check_captions(model, are_there=has_captions(captions_dir))
    if not model.has_vocabulary:
        return None
    vocabulary = read_vocabulary(captions_dir / "vocabulary.parquet")
    check_token_ids(captions_dir, len(vocabulary.words))
    return vocabulary


def _freeze(network: TrimodalNet, towers: FrozenTowers, features_dir: Path) -> FeatureStore:
    """Makes the frozen towers those of the stage ``features``, whatever ``train.seed`` is, and
    opens their features.
    """
    frozen = towers.build()
    for name in towers.model.freeze:
        weights = dict(getattr(frozen, name).state_dict())
        own = {n: w for n, w in weights.items() if n.partition(".")[0] not in LEARNING_PARTS}
        getattr(network, name).load_state_dict(own, strict=False)
    return FeatureStore(features_dir, towers.identities(frozen))


def _pretrained_fingerprints(network: TrimodalNet, model: ModelConfig) -> dict[str, str]:
    """Of the towers that start from weights of a file, a folder or a cache, which may change."""
    weights = {
        "image": model.image_weights, "audio": model.audio_weights, "text": model.text_weights,
    }  # fmt: skip
    return {
        tower: tower_fingerprint(getattr(network, tower))
        for tower, of_tower in weights.items()
        if of_tower not in ("none", "imagenet")
    }


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
        f"{0 if streams.image_text is None else len(streams.image_text)} images; "
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
