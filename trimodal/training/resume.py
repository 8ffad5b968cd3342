"""A training run on disk: all that is needed to resume it exactly, in one safetensors file.

It has tensors (networks, optimiser, random state, losses of the unfinished epoch, the best weights
so far) and, in the file's header, the rest as JSON and a digest of it all. Nothing is unpickled. A
save needs the space of two such files: the old one stays until the new one is complete.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from trimodal.core.files import write_bytes
from trimodal.core.fingerprint import sha256_of
from trimodal.core.records import DataError
from trimodal.training.config import SelectBy
from trimodal.training.distributed import World
from trimodal.training.trainer import StepLosses, Trainer
from trimodal.training.validation import Scores

_FORMAT = 5
_HEADER = "run"


class ResumeError(DataError):
    """A run on disk cannot be resumed: other params, data or code, or a damaged file."""


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """Fingerprints of all that determines a run's result: its params, its data and its code."""

    params: str
    data: str
    code: str


@dataclass(kw_only=True)
class Run:
    """The progress of a training run. ``history`` has an entry for each epoch, {'train': ...,
    'val': ...}; ``losses`` are those of the unfinished epoch's steps; ``best_weights``, without
    those that were frozen, is empty until there is a best epoch. ``random`` is PyTorch's random
    state at the last save, by device, with a row for each rank.
    """

    step: int = 0
    history: list[Scores] = field(default_factory=list)
    losses: list[StepLosses] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float = math.inf
    best_recall: float = -math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    random: dict[str, Tensor] = field(default_factory=dict)

    def is_best(self, scores: Mapping[str, float], select_by: SelectBy) -> bool:
        """Whether an epoch with these validation scores, of which the loss must be finite, is
        better than the best so far: a lower loss, or a higher recall, or with that the same a lower
        loss; or just later (``last``).
        """
        loss = scores["loss"]
        if select_by == "last":
            return math.isfinite(loss)
        if select_by == "loss" or not math.isfinite(loss):
            return loss < self.best_loss
        return (-scores["recall"], loss) < (-self.best_recall, self.best_loss)

    def keep_best(
        self, weights: Mapping[str, Tensor], epoch: int, scores: Mapping[str, float]
    ) -> None:
        """Copies the weights as the best so far."""
        self.best_epoch, self.best_loss = epoch, scores["loss"]
        self.best_recall = scores.get("recall", -math.inf)
        self.best_weights = {
            name: tensor.detach().cpu().clone() for name, tensor in weights.items()
        }

    def restore_random(self, rank: int) -> None:
        """Restores the random state of a rank. Call it after all set-up that uses random numbers,
        just before the first step.
        """
        # A copy of the row: PyTorch reads a state from the start of its storage.
        states = {device: states[rank].clone() for device, states in self.random.items()}
        if states:
            torch.set_rng_state(states["cpu"])
        if "cuda" in states and torch.cuda.is_available():
            torch.cuda.set_rng_state(states["cuda"])


def save_run(path: Path, run: Run, identity: RunIdentity, trainer: Trainer, world: World) -> None:
    """Writes the run atomically, with a digest: about 1 s per GB. All ranks must call this; rank 0
    writes. Raises OSError if the disk is full or fails.
    """
    random = {"cpu": _gather_state(torch.get_rng_state(), world)}
    if torch.cuda.is_available():
        random["cuda"] = _gather_state(torch.cuda.get_rng_state(), world)
    if not world.is_main:
        return
    tensors, metadata = trainer.state()
    parts = {
        "trainer": tensors,
        "random": random,
        "best": run.best_weights,
        "losses": _stack(run.losses),
    }
    header = {
        "format": _FORMAT,
        "identity": asdict(identity),
        "step": run.step,
        "history": run.history,
        "best_epoch": run.best_epoch,
        "best_loss": run.best_loss,
        "best_recall": run.best_recall,
        "trainer": metadata,
    }
    flat = {
        f"{part}/{name}": tensor.detach().cpu().contiguous()
        for part, named in parts.items()
        for name, tensor in named.items()
    }
    # Not save_file: killed, it leaves a temporary file of its own.
    text = json.dumps(header)
    # One entry of metadata: safetensors writes several in any order.
    sealed = json.dumps({"digest": _digest(text, flat), "header": text})
    write_bytes(path, save(flat, {_HEADER: sealed}))


def _digest(header: str, tensors: Mapping[str, Tensor]) -> str:
    """Identifies the header and the tensors, by name, with their type, shape and bytes."""
    parts: list[bytes | memoryview] = [header.encode()]
    for name, tensor in sorted(tensors.items()):
        parts += [f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), _bytes(tensor)]
    return sha256_of(*parts)


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _gather_state(state: Tensor, world: World) -> Tensor:
    return world.all_gather(state[None].to(world.device))


def load_run(path: Path, identity: RunIdentity, trainer: Trainer) -> Run:
    """Reads a run and restores the trainer to its state.

    Raises ResumeError, with both fingerprints, for a run with other params, data or code, and for
    a file that is not a run or is damaged.
    """
    header, flat = _read(path)
    for what, ours in asdict(identity).items():
        if (theirs := header["identity"].get(what)) != ours:
            raise ResumeError(f"{path}: a run with other {what}: fingerprint {theirs}, not {ours}")
    parts: dict[str, dict[str, Tensor]] = {}
    for full_name, tensor in flat.items():
        part, name = full_name.split("/", 1)
        parts.setdefault(part, {})[name] = tensor
    trainer.restore(parts["trainer"], header["trainer"])
    losses = parts.get("losses", {})
    return Run(
        step=header["step"],
        history=header["history"],
        losses=_unstacked(losses),
        best_epoch=header["best_epoch"],
        best_loss=header["best_loss"],
        best_recall=header["best_recall"],
        best_weights=parts.get("best", {}),
        random=parts["random"],
    )


def _stack(losses: list[StepLosses]) -> dict[str, Tensor]:
    if not losses:
        return {}
    columns = zip(StepLosses._fields, zip(*losses, strict=True), strict=True)
    return {name: torch.stack(column) for name, column in columns if column[0] is not None}


def _unstacked(losses: Mapping[str, Tensor]) -> list[StepLosses]:
    if not losses:
        return []
    audio = losses["image_audio"]
    text = losses.get("image_text", [None] * len(audio))
    return [StepLosses(*pair) for pair in zip(audio, text, strict=True)]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            sealed = json.loads((file.metadata() or {})[_HEADER])
            digest, text = str(sealed["digest"]), str(sealed["header"])
            header = json.loads(text)
            # Copies: a tensor of the file itself would keep the replaced file's space in use.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, LookupError, TypeError) as error:
        raise ResumeError(f"{path}: not a training run: {error}") from error
    if header.get("format") != _FORMAT:
        raise ResumeError(f"{path}: a run in format {header.get('format')}, not {_FORMAT}")
    if digest != _digest(text, tensors):
        raise ResumeError(f"{path}: damaged: not the run that was saved")
    return header, tensors
