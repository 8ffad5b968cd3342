"""Ranks compute what one process with the full batch would, in float64 to 1e-10."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from configs import config_for_tests
from model_fixtures import MODEL
from ranks import on_ranks
from torch import Tensor, nn
from training_fixtures import VARIABLE_MARGIN

from trimodal.losses.config import LossConfig
from trimodal.models.image_input import ImageInput
from trimodal.models.networks import TrimodalNet
from trimodal.training.batch_norm import synchronise_batch_norm
from trimodal.training.config import TrainConfig
from trimodal.training.distributed import SINGLE_PROCESS, World
from trimodal.training.trainer import Trainer

CONFIG = config_for_tests(
    TrainConfig, batch_size=3, epochs=2, steps_per_epoch=2, rate_step_epochs=2,
    weight_decay=1e-5, image_rate_factor=0.5, text_rate_factor=2.0,
)  # fmt: skip
LOSS = VARIABLE_MARGIN
CLOSE = {"rtol": 0.0, "atol": 1e-10}
ROWS = 12


_prepare = ImageInput.prepare


def in_double(own: ImageInput, pixels: Tensor) -> Tensor:
    return _prepare(own, pixels).double()


def doubled() -> TrimodalNet:
    torch.manual_seed(3)
    return TrimodalNet(MODEL, torch.randn(20, 300)).double()


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(4)

    def images() -> Tensor:
        return torch.randint(0, 256, (ROWS, 3, 32, 32), generator=generator, dtype=torch.uint8)

    windows = torch.randn(ROWS, 1, 16, 151, generator=generator).double()
    words = torch.randint(0, 20, (ROWS, 16), generator=generator)
    return [(images(), windows), (images(), words)]


def stepped(world: World, config: TrainConfig, loss: LossConfig) -> dict[str, Any]:
    """Two steps on this rank's part of the same batch: the losses, gradients, weights, buffers."""
    ImageInput.prepare = in_double  # type: ignore[method-assign]
    rows = ROWS // world.size
    part = slice(world.rank * rows, (world.rank + 1) * rows)
    net = doubled()
    trainer = Trainer(net, config, loss, world)
    trainer._logit_scale.double()
    audio, text = [(images[part], others[part]) for images, others in batches()]
    losses = [torch.stack(trainer.step(audio, text)) for _ in range(2)]
    gradients = {name: p.grad for name, p in net.named_parameters()}
    return {
        "losses": torch.stack(losses), "gradients": gradients, "state": net.state_dict(),
        "logit_scale": trainer._logit_scale.state_dict(),
    }  # fmt: skip


SYNCHRONISED = replace(CONFIG, batch_norm="synchronised")
CASES = {
    "fixed": (SYNCHRONISED, replace(LOSS, margin_mode="fixed")),
    "variable": (SYNCHRONISED, LOSS),
    "alternating": (replace(SYNCHRONISED, update="alternating"), LOSS),
} | {
    kind: (SYNCHRONISED, replace(LOSS, kind=kind)) for kind in ("hardest", "semi_hard", "info_nce")
}  # fmt: skip
LOCAL_CASES = {
    "chunks": (replace(CONFIG, chunk_size=3), LOSS),
    "local statistics": (CONFIG, LOSS),
}


def all_stepped(world: World) -> dict[str, Any]:
    return {name: stepped(world, *case) for name, case in (CASES | LOCAL_CASES).items()}


@pytest.fixture(scope="module")
def on_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of every case on each of two ranks."""
    return on_ranks(2, all_stepped, tmp_path_factory.mktemp("ranks"))


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageInput, "prepare", in_double)


@pytest.mark.parametrize("case", CASES)
def test_ranks_take_the_same_step_as_one_process(case: str, on_two: list[dict[str, Any]]) -> None:
    single = stepped(SINGLE_PROCESS, *CASES[case])
    for results in on_two:
        assert results[case]["gradients"].keys() == single["gradients"].keys()
        torch.testing.assert_close(results[case], single, **CLOSE)


def test_chunks_on_ranks_leave_every_rank_with_the_same_weights(
    on_two: list[dict[str, Any]],
) -> None:
    """With local statistics only the running statistics differ between ranks."""
    one, other = (results["chunks"] for results in on_two)
    parameters = dict(doubled().named_parameters())
    for name in parameters:
        torch.testing.assert_close(one["state"][name], other["state"][name], rtol=0, atol=0)
    assert not torch.equal(
        one["state"]["text.backbone.norms.0.running_mean"],
        other["state"]["text.backbone.norms.0.running_mean"],
    )


def test_local_statistics_give_another_step(on_two: list[dict[str, Any]]) -> None:
    """Otherwise the test of synchronised statistics would pass without them."""
    single = stepped(SINGLE_PROCESS, CONFIG, LOSS)
    local = on_two[0]["local statistics"]
    assert (local["losses"] - single["losses"]).abs().max() > 1e-4


def normalised(world: World) -> dict[str, Tensor]:
    """A batch norm of each kind on 12 rows, with its gradient."""
    results = {}
    for kind, shape in ((nn.BatchNorm1d, (ROWS, 5, 7)), (nn.BatchNorm2d, (ROWS, 5, 3, 4))):
        torch.manual_seed(5)
        net = nn.Sequential(kind(5, momentum=0.3)).double()
        nn.init.normal_(net[0].weight)
        if world.size > 1:
            synchronise_batch_norm(net, world)
        rows = torch.randn(shape).double() + 3
        weights = torch.randn(shape).double()
        part = slice(world.rank * ROWS // world.size, (world.rank + 1) * ROWS // world.size)
        own_rows = rows[part].clone().requires_grad_()
        (net(own_rows) * weights[part]).sum().backward()
        name = kind.__name__
        results |= {
            f"{name} gradient": world.all_gather(own_rows.grad),
            f"{name} weight": world.all_reduce_sum(net[0].weight.grad),
        }
        results |= {f"{name} {key}": value for key, value in net.state_dict().items()}
        results[f"{name} eval"] = copy.deepcopy(net).eval()(rows).detach()
    return results


def gathered(world: World) -> dict[str, Tensor]:
    rows = torch.full((2, 3), world.rank + 1.0, dtype=torch.float64, requires_grad=True)
    gathered_rows = world.all_gather(rows)
    ((world.rank + 1) * gathered_rows * torch.arange(18.0).view(6, 3)).sum().backward()
    return {"rows": gathered_rows.detach(), "gradient": rows.grad}


def normalised_and_gathered(world: World) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return normalised(world), gathered(world)


@pytest.fixture(scope="module")
def on_three(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return on_ranks(3, normalised_and_gathered, tmp_path_factory.mktemp("ranks"))


def test_synchronised_batch_norm_is_that_of_the_whole_batch(on_three: list[Any]) -> None:
    single = normalised(SINGLE_PROCESS)
    for normalised_rows, _ in on_three:
        torch.testing.assert_close(normalised_rows, single, **CLOSE)


def test_gathered_rows_have_the_gradient_of_all_ranks(on_three: list[Any]) -> None:
    for rank, (_, gathered_rows) in enumerate(on_three):
        assert gathered_rows["rows"][:, 0].tolist() == [1, 1, 2, 2, 3, 3]
        expected = (1 + 2 + 3) * torch.arange(18.0).view(3, 2, 3)[rank].double()
        torch.testing.assert_close(gathered_rows["gradient"], expected)
