"""The training step: a model, its optimiser and its losses (docs/method.md, Training)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LinearLR, StepLR

from trimodal.core.progress import log
from trimodal.data.readers import Pair
from trimodal.features.frozen import LEARNING_PARTS, frozen_parts
from trimodal.losses.config import LossConfig, configured_loss
from trimodal.losses.info_nce import LogitScale
from trimodal.losses.ranking import FullBatch
from trimodal.models.devices import pick_dtype, should_compile
from trimodal.models.networks import TrimodalNet
from trimodal.training.batch_norm import synchronise_batch_norm
from trimodal.training.config import TrainConfig
from trimodal.training.distributed import World
from trimodal.training.grad_cache import embed_in_chunks
from trimodal.training.image_audio import ImageAudioValidation
from trimodal.training.image_text import ImageTextValidation
from trimodal.training.sampler import validation_batches
from trimodal.training.streams import Streams
from trimodal.training.validation import recall, with_totals


class StepLosses(NamedTuple):
    """The loss of each stream, both directions added; None for a stream that there is not."""

    image_audio: Tensor
    image_text: Tensor | None


class Trainer:
    """A model, its optimiser and its losses. Each process of ``world`` has a trainer, gets its part
    of every batch, and has the same weights as the others after each step.

    The towers ``frozen`` (image, text) have no gradient but in their heads, compute as in
    evaluation, and are not part of :meth:`state` and :meth:`weights`, until :meth:`thaw`.
    """

    def __init__(
        self,
        network: TrimodalNet,
        config: TrainConfig,
        loss: LossConfig,
        world: World,
        frozen: Sequence[str] = (),
    ) -> None:
        device, self._world = world.device, world
        if config.batch_norm == "synchronised" and world.size > 1:
            synchronise_batch_norm(network, world)
        self.network = network.to(device)
        self._layout = memory_layout(network, device)
        self.network.to(memory_format=self._layout)
        self._compile(config)
        self._config = config
        self.frozen = tuple(frozen)
        for part in self._frozen_parts():
            part.requires_grad_(False)
        self._to_train_mode()
        self._parallel = self._data_parallel()
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

    def _compile(self, config: TrainConfig) -> None:
        compiled, problem = should_compile(config.compile, self._world.device)
        if problem:
            log.info(
                f"train: networks are not compiled (train.compile {config.compile}): {problem}"
            )
        for part in self.network.children() if compiled else ():
            part.compile()

    def _frozen_parts(self) -> Iterator[nn.Module]:
        for tower in self.frozen:
            yield from (part for _, part in frozen_parts(getattr(self.network, tower)))

    def _to_train_mode(self) -> None:
        self.network.train()
        for part in self._frozen_parts():
            part.eval()

    def _data_parallel(self) -> dict[str, nn.Module]:
        return {
            name: self._world.data_parallel(part) for name, part in self.network.named_children()
        }

    def weights(self) -> dict[str, Tensor]:
        """The network's weights, without those that are frozen."""
        return {n: w for n, w in self.network.state_dict().items() if not self._is_frozen(n)}

    def frozen_weights(self) -> dict[str, Tensor]:
        """The weights that are frozen, as copies on the CPU."""
        state = self.network.state_dict()
        return {n: w.detach().cpu().clone() for n, w in state.items() if self._is_frozen(n)}

    def _is_frozen(self, name: str) -> bool:
        tower, part, *_ = name.split(".")
        return tower in self.frozen and part not in LEARNING_PARTS

    def thaw(self) -> None:
        """From now on the frozen towers learn, too."""
        for part in self._frozen_parts():
            part.requires_grad_(True)
        self.frozen = ()
        self._to_train_mode()
        self._parallel.clear()  # their hooks go with them
        self._parallel = self._data_parallel()

    def step(self, audio_batch: Pair, text_batch: Pair | None) -> StepLosses:
        """One step on a batch of each stream: ``joint`` makes one update with the sum of both
        losses (the paper), ``alternating`` an update after each (the authors' code).
        """
        if text_batch is None:
            losses = [self._loss_of("audio", audio_batch)]
            self._update(losses[0])
        elif self._config.update == "joint":
            losses = self._joint_losses(audio_batch, text_batch)
            self._update(losses[0] + losses[1])
        else:
            losses = []
            for other, batch in (("audio", audio_batch), ("text", text_batch)):
                losses.append(self._loss_of(other, batch))
                self._update(losses[-1])
        self._warmup.step()
        shares = torch.stack([loss.detach() for loss in losses])
        audio, *text = self._world.all_reduce_sum(shares).unbind()
        return StepLosses(audio, text[0] if text else None)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that steps change: tensors, and the rest as JSON."""
        tensors = {f"network/{name}": value for name, value in self.weights().items()}
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
        rest = {"groups": optimiser["param_groups"], "frozen": list(self.frozen), **schedules}
        return tensors, rest

    def restore(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Restores what :meth:`state` returned, of a trainer made with the same frozen towers."""
        if self.frozen and not metadata["frozen"]:
            self.thaw()
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
        self.network.load_state_dict(self.frozen_weights() | weights)
        self._logit_scale.load_state_dict(logit_scale)
        self._optimiser.load_state_dict({"state": moments, "param_groups": metadata["groups"]})
        self._schedule.load_state_dict(dict(metadata["schedule"]))
        self._warmup.load_state_dict(dict(metadata["warmup"]))

    def end_epoch(self) -> None:
        """Advances the learning-rate schedule."""
        self._schedule.step()

    @torch.inference_mode()
    def validate(self, streams: Streams) -> dict[str, float]:
        """Mean validation losses: ``image_audio``, ``image_text`` and their sum, ``loss``; and the
        recalls of each stream and their mean, ``recall``.
        """
        self._world.broadcast_buffers(self.network)
        self.network.eval()
        losses: dict[str, float] = {}
        recalls: dict[str, float] = {}
        for stream, other, dataset in (
            ("image_audio", "audio", streams.image_audio_validation),
            ("image_text", "text", streams.image_text_validation),
        ):
            if dataset is not None:
                losses[stream], images, others = self._validated(other, dataset)
                recalls |= {f"{stream}_{k}": v for k, v in recall(images, others).items()}
        self._to_train_mode()
        return with_totals(losses, recalls)

    def _validated(
        self, other: str, dataset: ImageAudioValidation | ImageTextValidation
    ) -> tuple[float, Tensor, Tensor]:
        """The mean loss over samples, and all embeddings, (samples, dim) of images and of the
        others; the batches are distributed over the ranks.
        """
        rank, world_size = self._world.rank, self._world.size
        size = self._config.batch_size
        sums = torch.zeros(-(-len(dataset) // size), 2, dtype=torch.float64, device=self._device)
        embedded = torch.zeros(2, len(dataset), self.network.embedding_dim, device=self._device)
        for turn, batch in enumerate(validation_batches(dataset, size, rank, world_size)):
            samples, number = len(batch[0]), rank + turn * world_size
            pair = torch.stack(self._embedded(other, batch))
            loss = self._pair_loss(*pair)
            sums[number] = torch.tensor([loss.item() * samples, samples])
            embedded[:, number * size : number * size + samples] = pair
        total, samples = self._world.all_reduce_sum(sums).cpu().cumsum(0)[-1].tolist()
        images, others = self._world.all_reduce_sum(embedded)
        return float(total / samples), images, others

    def _update(self, loss: Tensor) -> None:
        if not loss.requires_grad:  # of frozen towers without heads
            return
        # Adam skips a parameter without a gradient, but not one whose gradient is zero.
        self._optimiser.zero_grad(set_to_none=self._config.alternating_momentum == "separate")
        # Ranks average their gradients, but the full batch's gradient is the sum over the ranks.
        (self._world.size * loss).backward()  # type: ignore[no-untyped-call]
        for parameter in self._logit_scale.parameters():  # not in a data-parallel network
            if parameter.grad is not None:
                parameter.grad = self._world.all_reduce_sum(parameter.grad) / self._world.size
        self._optimiser.step()

    def _joint_losses(self, audio_batch: Pair, text_batch: Pair) -> list[Tensor]:
        # One pass of the image network, so that its batch norm sees both streams together.
        pixels = torch.cat([audio_batch[0], text_batch[0]])
        embedded = self._embed_images(pixels)
        frames, images = embedded.tensor_split([len(audio_batch[0])])
        return [
            self._pair_loss(frames, self._embed_other("audio", audio_batch[1])),
            self._pair_loss(images, self._embed_other("text", text_batch[1])),
        ]

    def _loss_of(self, other: str, batch: Pair) -> Tensor:
        return self._pair_loss(*self._embedded(other, batch))

    def _embedded(self, other: str, batch: Pair) -> tuple[Tensor, Tensor]:
        """Images and the others of a batch, embedded."""
        others = self._embed_other(other, batch[1])
        return self._embed_images(batch[0]), others

    def _embed_images(self, images: Tensor) -> Tensor:
        """Of pixels, or of features that were made of them before."""
        if images.is_floating_point():
            return self._embed("image", images, Tensor.float)
        prepare = self.network.image.prepare
        return self._embed("image", images, lambda part: self._to_layout(prepare(part)))

    def _embed_other(self, name: str, inputs: Tensor) -> Tensor:
        """Of audio windows; of word ids, or of features that were made of them before."""
        if name == "audio":
            return self._embed(name, inputs, self._to_layout)
        is_features = inputs.is_floating_point()
        return self._embed(name, inputs, Tensor.float if is_features else lambda ids: ids)

    def _to_layout(self, inputs: Tensor) -> Tensor:
        return inputs.contiguous(memory_format=self._layout)

    def _embed(self, name: str, inputs: Tensor, prepare: Callable[[Tensor], Tensor]) -> Tensor:
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
    """Means over steps: ``image_audio``, ``image_text`` (if there are captions) and their sum,
    ``loss``.
    """
    columns = zip(StepLosses._fields, zip(*steps, strict=True), strict=True)
    means = {
        name: torch.stack(losses).mean().item() for name, losses in columns if losses[0] is not None
    }
    return means | {"loss": sum(means.values())}
