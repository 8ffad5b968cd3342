"""A training run on disk: all it needs to go on exactly where it was, in one safetensors file.

Tensors (networks, optimiser, random state, losses of the epoch under way, the best weights so far)
and, as JSON in the file's header, the rest. Nothing is unpickled.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trimodal.core.files import atomic_path
from trimodal.core.records import DataError
from trimodal.training.distributed import World
from trimodal.training.trainer import StepLosses, Trainer

_FORMAT = 2
_HEADER = "run"
Scores = dict[str, dict[str, float]]


class RunRefusedError(DataError):
    """A run on disk that cannot go on as this one: other params, data or code, or a broken file."""


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """What a run is of: fingerprints of the params that shape it, of its data and of its code."""

    params: str
    data: str
    code: str


@dataclass(kw_only=True)
class Run:
    """How far a training run has come. ``history`` has an entry an epoch, {'train': ..., 'val':
    ...}; ``losses`` are those of the steps since then; ``best_weights`` is empty until there is a
    best epoch. ``random`` is PyTorch's state where the run was left, by device, a row a rank.
    """

    step: int = 0
    history: list[Scores] = field(default_factory=list)
    losses: list[StepLosses] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float = math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    random: dict[str, Tensor] = field(default_factory=dict)

    def keep(self, weights: Mapping[str, Tensor], epoch: int, loss: float) -> None:
        """Takes a copy of the weights as the best so far."""
        self.best_epoch, self.best_loss = epoch, loss
        self.best_weights = {
            name: tensor.detach().cpu().clone() for name, tensor in weights.items()
        }

    def restore_random(self, rank: int) -> None:
        """Sets PyTorch's random state to where a rank was left; to be called when all that draws
        from it on the way to the first step has been set up.
        """
        # A row's own copy: PyTorch reads a state from where its storage begins.
        states = {device: states[rank].clone() for device, states in self.random.items()}
        if states:
            torch.set_rng_state(states["cpu"])
        if "cuda" in states and torch.cuda.is_available():
            torch.cuda.set_rng_state(states["cuda"])


def save_run(path: Path, run: Run, identity: RunIdentity, trainer: Trainer, world: World) -> None:
    """Writes the run atomically: the first rank does, and all must call it. Raises OSError where
    the disk cannot take it.
    """
    random = {"cpu": _of_all_ranks(torch.get_rng_state(), world)}
    if torch.cuda.is_available():
        random["cuda"] = _of_all_ranks(torch.cuda.get_rng_state(), world)
    if not world.is_main:
        return
    tensors, facts = trainer.state()
    parts = {
        "trainer": tensors,
        "random": random,
        "best": run.best_weights,
        "losses": _stacked(run.losses),
    }
    header = {
        "format": _FORMAT,
        "identity": asdict(identity),
        "step": run.step,
        "history": run.history,
        "best_epoch": run.best_epoch,
        "best_loss": run.best_loss,
        "trainer": facts,
    }
    flat = {
        f"{part}/{name}": tensor.detach().cpu().contiguous()
        for part, named in parts.items()
        for name, tensor in named.items()
    }
    with atomic_path(path) as temporary:
        try:
            save_file(flat, temporary, {_HEADER: json.dumps(header)})
        except SafetensorError as error:
            raise OSError(f"{path}: {error}") from error


def _of_all_ranks(state: Tensor, world: World) -> Tensor:
    return world.all_gather(state[None].to(world.device))


def load_run(path: Path, identity: RunIdentity, trainer: Trainer) -> Run:
    """Reads a run back and sets the trainer to it.

    Raises RunRefusedError, naming both fingerprints, for a run of other params, data or code, and
    for a file that is no run.
    """
    header, flat = _read(path)
    for what, ours in asdict(identity).items():
        if (theirs := header["identity"].get(what)) != ours:
            raise RunRefusedError(f"{path}: a run of other {what}: {theirs}, this one's are {ours}")
    parts: dict[str, dict[str, Tensor]] = {}
    for full_name, tensor in flat.items():
        part, name = full_name.split("/", 1)
        parts.setdefault(part, {})[name] = tensor
    trainer.restore(parts["trainer"], header["trainer"])
    losses = parts.get("losses", {})
    return Run(
        step=header["step"],
        history=header["history"],
        losses=[StepLosses(*pair) for pair in zip(*losses.values(), strict=True)] if losses else [],
        best_epoch=header["best_epoch"],
        best_loss=header["best_loss"],
        best_weights=parts.get("best", {}),
        random=parts["random"],
    )


def _stacked(losses: list[StepLosses]) -> dict[str, Tensor]:
    if not losses:
        return {}
    columns = zip(*losses, strict=True)
    return dict(zip(StepLosses._fields, map(torch.stack, columns), strict=True))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, LookupError) as error:
        raise RunRefusedError(f"{path}: not a training run: {error}") from error
    if header.get("format") != _FORMAT:
        raise RunRefusedError(f"{path}: a run of format {header.get('format')}, not {_FORMAT}")
    return header, tensors
