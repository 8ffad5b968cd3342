"""Section ``train``."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from trimodal.core.config import SECTION
from trimodal.models.devices import Compile, Precision

Logger = Literal["tensorboard", "wandb"]
SelectBy = Literal["loss", "recall", "last"]
Rows = Annotated[int, Field(ge=2)]  # a loss needs a negative, batch norm two rows


@dataclass(frozen=True, kw_only=True, config=SECTION)
class TrainConfig:
    """Section ``train``. An epoch has ``steps_per_epoch`` steps; null means as many as the shorter
    stream has batches. The learning rate is multiplied by ``rate_decay`` every
    ``rate_step_epochs`` and grows linearly from zero in the first ``warmup_steps``; each network's
    rate is ``learning_rate`` times its factor. The networks compute in ``precision``; embeddings
    and losses are float32. ``compile`` is torch.compile: ``auto`` on a GPU with a compiler. With
    ``chunk_size`` the networks embed that many rows at a time, while
    the loss still sees the full batch (:mod:`trimodal.training.grad_cache`).

    ``update`` is ``joint``, one step on the sum of both streams' losses (the paper), or
    ``alternating``, a step on each (the authors' code). With ``alternating_momentum`` ``separate``
    a step updates only the networks that took part in it. ``shared`` updates all three: the others
    have a gradient of zero, so that momentum and weight decay still act, as in the authors' runs,
    whose PyTorch zeroed gradients instead of dropping them. (No effect on ``joint`` updates.)

    ``reader`` ``indexed`` draws each batch from all rows, which suits local disks. ``stream`` reads
    shard by shard, mixing the rows of ``shuffle_shards`` of them, so that a cache of a few shards
    suffices (:class:`~trimodal.training.rounds.ShardRounds`), and makes ``frames_per_clip`` pairs
    of each clip meanwhile. Both read every clip once a round.

    The towers of ``model.freeze`` stay as they are, or learn, too, after ``freeze_epochs``. The
    epoch that is kept is the one with the lowest validation loss, with the highest validation
    recall, or the last (``select_by``: :mod:`trimodal.training.validation`). Scores go to
    ``loggers``, too (:mod:`trimodal.training.epoch_log`), which change no result.

    With several processes (``machine.devices``) the negatives of each row are still those of the
    full batch. ``batch_norm`` is then over each process's own rows (``local``, as in the authors'
    data parallel code) or over all rows (``synchronised``, as in one process).
    """

    seed: int
    batch_size: Rows
    chunk_size: Rows | None
    epochs: PositiveInt
    steps_per_epoch: PositiveInt | None
    update: Literal["joint", "alternating"]
    alternating_momentum: Literal["separate", "shared"]
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    rate_step_epochs: PositiveInt
    rate_decay: PositiveFloat
    warmup_steps: NonNegativeInt
    image_rate_factor: NonNegativeFloat
    audio_rate_factor: NonNegativeFloat
    text_rate_factor: NonNegativeFloat
    first_frame: PositiveInt
    last_frame: PositiveInt
    validation_frame: PositiveInt
    reader: Literal["indexed", "stream"]
    shuffle_shards: PositiveInt
    frames_per_clip: PositiveInt
    batch_norm: Literal["local", "synchronised"]
    precision: Precision
    compile: Compile
    freeze_epochs: PositiveInt | None
    select_by: SelectBy
    loggers: tuple[Logger, ...]

    def __post_init__(self) -> None:
        if not self.first_frame <= self.validation_frame <= self.last_frame:
            raise ValueError("need first_frame <= validation_frame <= last_frame")
        if self.reader == "indexed" and self.frames_per_clip != 1:
            raise ValueError("frames_per_clip is for reader: stream")
