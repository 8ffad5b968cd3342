"""The training step: a model, its optimiser and its losses (docs/method.md, Training)."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LinearLR, StepLR

from trimodal.data.readers import Pair
from trimodal.losses.config import LossConfig, configured_loss
from trimodal.losses.info_nce import LogitScale
from trimodal.losses.ranking import FullBatch
from trimodal.models.devices import pick_dtype
from trimodal.models.networks import TrimodalNet
from trimodal.training.batch_norm import synchronise_batch_norm
from trimodal.training.config import TrainConfig
from trimodal.training.distributed import World
from trimodal.training.grad_cache import embed_in_chunks
from trimodal.training.image_audio import ImageAudioValidation
from trimodal.training.image_text import ImageTextValidation
from trimodal.training.sampler import validation_batches
from trimodal.training.streams import Streams


class StepLosses(NamedTuple):
    """The loss of each stream, both directions added."""

    image_audio: Tensor
    image_text: Tensor


class Trainer:
    """A model, its optimiser and its losses. Each process of ``world`` has a trainer, gets its part
    of every batch, and has the same weights as the others after each step.
    """

    def __init__(
        self, network: TrimodalNet, config: TrainConfig, loss: LossConfig, world: World
    ) -> None:
        device = world.device
        if config.batch_norm == "synchronised" and world.size > 1:
            synchronise_batch_norm(network, world)
        self.network = network.to(device)
        self._layout = memory_layout(network, device)
        self.network.to(memory_format=self._layout)
        self._parallel = {
            name: world.data_parallel(part) for name, part in network.named_children()
        }
        self._config = config
        self._world = world
        self._device = device
        self._dtype = pick_dtype(config.precision, device)
        self._loss = loss
        self._logit_scale = LogitScale(loss.temperature).to(device)
        rates = {
            "image": config.image_rate_factor,
            "audio": config.audio_rate_factor,
            "text": config.text_rate_factor,
        }
        self._optimiser = Adam(
            [
                {
                    "params": getattr(self.network, name).parameters(),
                    "lr": config.learning_rate * factor,
                }
                for name, factor in rates.items()
            ]
            + [
                {
                    "params": self._logit_scale.parameters(),
                    "lr": config.learning_rate,
                    "weight_decay": 0,
                }
            ],
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._schedule = StepLR(self._optimiser, config.rate_step_epochs, config.rate_decay)
        steps = max(1, config.warmup_steps)
        self._warmup = LinearLR(self._optimiser, 1 / steps, total_iters=steps - 1)

    def step(self, audio_batch: Pair, text_batch: Pair) -> StepLosses:
        """One step on a batch of each stream: ``joint`` makes one update with the sum of both
        losses (the paper), ``alternating`` an update after each (the authors' code).
        """
        if self._config.update == "joint":
            image_audio, image_text = self._joint_losses(audio_batch, text_batch)
            self._update(image_audio + image_text)
        else:
            image_audio = self._audio_loss(audio_batch)
            self._update(image_audio)
            image_text = self._text_loss(text_batch)
            self._update(image_text)
        self._warmup.step()
        shares = torch.stack([image_audio.detach(), image_text.detach()])
        return StepLosses(*self._world.all_reduce_sum(shares).unbind())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that steps change: tensors, and the rest as JSON."""
        tensors = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {
            f"logit_scale/{name}": value for name, value in self._logit_scale.state_dict().items()
        }
        optimiser = self._optimiser.state_dict()
        for number, moments in optimiser["state"].items():
            tensors |= {f"optimiser/{number}/{name}": value for name, value in moments.items()}
        schedules = {
            "schedule": self._schedule.state_dict(),
            "warmup": self._warmup.state_dict(),
        }
        return tensors, {"groups": optimiser["param_groups"], **schedules}

    def restore(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Restores what :meth:`state` returned."""
        weights: dict[str, Tensor] = {}
        logit_scale: dict[str, Tensor] = {}
        moments: dict[int, dict[str, Tensor]] = {}
        parameters = [p for group in self._optimiser.param_groups for p in group["params"]]
        for full_name, value in tensors.items():
            kind, name = full_name.split("/", 1)
            if kind in ("network", "logit_scale"):
                (weights if kind == "network" else logit_scale)[name] = value
                continue
            number, name = name.split("/")
            parameter = parameters[int(number)]
            if value.shape == parameter.shape:  # fused Adam needs the parameter's memory layout
                value = torch.empty_like(parameter).copy_(value)
            moments.setdefault(int(number), {})[name] = value
        for index in moments:  # with shared momentum a zero gradient still updates a parameter
            parameters[index].grad = torch.zeros_like(parameters[index])
        self.network.load_state_dict(weights)
        self._logit_scale.load_state_dict(logit_scale)
        self._optimiser.load_state_dict({"state": moments, "param_groups": metadata["groups"]})
        self._schedule.load_state_dict(dict(metadata["schedule"]))
        self._warmup.load_state_dict(dict(metadata["warmup"]))

    def end_epoch(self) -> None:
        """Advances the learning-rate schedule."""
        self._schedule.step()

    @torch.inference_mode()
    def validate(self, streams: Streams) -> dict[str, float]:
        """Mean validation losses: ``image_audio``, ``image_text`` and their sum, ``loss``."""
        self._world.broadcast_buffers(self.network)
        self.network.eval()
        audio = self._validation_mean(self._audio_loss, streams.image_audio_validation)
        text = self._validation_mean(self._text_loss, streams.image_text_validation)
        self.network.train()
        return {"image_audio": audio, "image_text": text, "loss": audio + text}

    def _validation_mean(
        self, loss: Callable[[Pair], Tensor], dataset: ImageAudioValidation | ImageTextValidation
    ) -> float:
        """The mean over samples; the batches are distributed over the ranks."""
        rank, world_size = self._world.rank, self._world.size
        size = self._config.batch_size
        sums = torch.zeros(-(-len(dataset) // size), 2, dtype=torch.float64, device=self._device)
        for turn, batch in enumerate(validation_batches(dataset, size, rank, world_size)):
            samples = len(batch[0])
            sums[rank + turn * world_size] = torch.tensor([loss(batch).item() * samples, samples])
        total, samples = self._world.all_reduce_sum(sums).cpu().cumsum(0)[-1].tolist()
        return float(total / samples)

    def _update(self, loss: Tensor) -> None:
        # Adam skips a parameter without a gradient, but not one whose gradient is zero.
        self._optimiser.zero_grad(set_to_none=self._config.alternating_momentum == "separate")
        # Ranks average their gradients, but the full batch's gradient is the sum over the ranks.
        (self._world.size * loss).backward()  # type: ignore[no-untyped-call]
        for parameter in self._logit_scale.parameters():  # not in a data-parallel network
            if parameter.grad is not None:
                parameter.grad = self._world.all_reduce_sum(parameter.grad) / self._world.size
        self._optimiser.step()

    def _joint_losses(self, audio_batch: Pair, text_batch: Pair) -> StepLosses:
        # One pass of the image network, so that its batch norm sees both streams together.
        pixels = torch.cat([audio_batch[0], text_batch[0]])
        embedded = self._embed_images(pixels)
        frames, images = embedded.tensor_split([len(audio_batch[0])])
        return StepLosses(
            self._pair_loss(frames, self._embed_audio(audio_batch[1])),
            self._pair_loss(images, self._embed("text", text_batch[1])),
        )

    def _audio_loss(self, batch: Pair) -> Tensor:
        audio = self._embed_audio(batch[1])
        return self._pair_loss(self._embed_images(batch[0]), audio)

    def _text_loss(self, batch: Pair) -> Tensor:
        captions = self._embed("text", batch[1])
        return self._pair_loss(self._embed_images(batch[0]), captions)

    def _embed_images(self, pixels: Tensor) -> Tensor:
        prepare = self.network.image.prepare
        return self._embed("image", pixels, lambda part: self._to_layout(prepare(part)))

    def _embed_audio(self, windows: Tensor) -> Tensor:
        return self._embed("audio", windows, self._to_layout)

    def _to_layout(self, inputs: Tensor) -> Tensor:
        return inputs.contiguous(memory_format=self._layout)

    def _embed(
        self,
        name: str,
        inputs: Tensor,
        prepare: Callable[[Tensor], Tensor] = lambda rows: rows,
    ) -> Tensor:
        use_bfloat16 = self._dtype is torch.bfloat16
        network = self._parallel[name] if self.network.training else getattr(self.network, name)

        def encode(rows: Tensor) -> Tensor:
            # Autocast is entered for each chunk: its cached bfloat16 weights would otherwise
            # accumulate the chunks' gradients in bfloat16.
            with torch.autocast(self._device.type, torch.bfloat16, enabled=use_bfloat16):
                embedded: Tensor = network(prepare(rows))
            return embedded

        on_device = inputs.to(self._device, non_blocking=True)
        return embed_in_chunks(encode, network, on_device, self._config.chunk_size)

    def _pair_loss(self, images: Tensor, others: Tensor) -> Tensor:
        """These rows' share of the full batch's loss; in validation, their own loss."""
        full_batch = None
        if self.network.training:
            gathered = self._world.all_gather(images), self._world.all_gather(others)
            full_batch = FullBatch(*gathered, self._world.rank * len(images))
        return configured_loss(
            images,
            others,
            self._loss,
            progress=self._progress,
            logit_scale=self._logit_scale(),
            full_batch=full_batch,
        )

    @property
    def _progress(self) -> float:
        """The progress from the first epoch to the last, in [0, 1]."""
        return min(1.0, self._schedule.last_epoch / max(1, self._config.epochs - 1))


def memory_layout(network: nn.Module, device: torch.device) -> torch.memory_format:
    """Channels-last, which is faster; but contiguous on a CPU for networks with fewer than 16
    channels, where oneDNN's backward pass of a strided 1 x 1 convolution writes past its buffer
    (uxlfoundation/oneDNN issue 6035).
    """
    narrow = any(
        module.in_channels < 16 and module.kernel_size == (1, 1) and module.stride != (1, 1)
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    )
    is_affected = narrow and device.type == "cpu"
    return torch.contiguous_format if is_affected else torch.channels_last


def mean_losses(steps: list[StepLosses]) -> dict[str, float]:
    """Means over steps: ``image_audio``, ``image_text`` and their sum, ``loss``."""
    audio = torch.stack([step.image_audio for step in steps]).mean().item()
    text = torch.stack([step.image_text for step in steps]).mean().item()
    return {"image_audio": audio, "image_text": text, "loss": audio + text}
