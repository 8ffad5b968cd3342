"""Section ``train``."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from trimodal.models.devices import Device, Devices, Precision


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Section ``train``. An epoch has ``steps_per_epoch`` steps, or with null as many as the
    shorter stream has batches. The rate is multiplied by ``rate_decay`` every ``rate_step_epochs``
    and grows evenly from nothing in the first ``warmup_steps``; a network's own rate is
    ``learning_rate`` times its factor. The run is saved every
    ``checkpoint_every`` steps: if it is killed, it goes on from there. The networks compute in
    ``precision``; embeddings and losses are float32. With ``chunk_size`` they take that many rows
    at a time, and the loss still sees the batch (:mod:`trimodal.training.grad_cache`).

    ``devices`` processes of this machine (``all``: one for each GPU) share each batch, and each
    row's negatives are still the whole batch's. ``batch_norm`` then is over each process's own rows
    (``local``, as the authors' data parallel code) or over all (``synchronised``, as one process).
    """

    seed: int
    batch_size: int
    chunk_size: int | None
    epochs: int
    steps_per_epoch: int | None
    checkpoint_every: int
    update: Literal["joint", "alternating"]
    learning_rate: float
    weight_decay: float
    rate_step_epochs: int
    rate_decay: float
    warmup_steps: int
    image_rate_factor: float
    audio_rate_factor: float
    text_rate_factor: float
    first_frame: int
    last_frame: int
    validation_frame: int
    loader_workers: int
    device: Device
    devices: Devices
    batch_norm: Literal["local", "synchronised"]
    precision: Precision

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ValueError("train.batch_size must be at least 2: a loss needs a negative")
        if self.chunk_size is not None and self.chunk_size < 2:
            raise ValueError("train.chunk_size must be at least 2 or null: batch norm needs two")
        for key in ("epochs", "rate_step_epochs", "first_frame", "checkpoint_every"):
            if getattr(self, key) < 1:
                raise ValueError(f"train.{key} must be at least 1")
        if self.steps_per_epoch is not None and self.steps_per_epoch < 1:
            raise ValueError("train.steps_per_epoch must be at least 1 or null")
        if self.devices != "all" and self.devices < 1:
            raise ValueError("train.devices must be at least 1, or all")
        if not self.first_frame <= self.validation_frame <= self.last_frame:
            raise ValueError("train: need first_frame <= validation_frame <= last_frame")
        if self.learning_rate <= 0 or self.rate_decay <= 0:
            raise ValueError("train.learning_rate and train.rate_decay must be positive")
        counts = (self.warmup_steps, self.loader_workers)
        factors = (self.image_rate_factor, self.audio_rate_factor, self.text_rate_factor)
        if min(*factors, self.weight_decay, *counts) < 0:
            raise ValueError(
                "train: rate factors, weight_decay, warmup_steps, loader_workers are not negative"
            )

    @property
    def shaping(self) -> dict[str, Any]:
        """The settings that a run's result depends on."""
        neutral = ("checkpoint_every", "loader_workers", "device", "devices")
        return {key: value for key, value in asdict(self).items() if key not in neutral}
