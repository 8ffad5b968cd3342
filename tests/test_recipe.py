"""Options beyond the paper: text pooling, mean of words, SpecAugment, warm-up, the margin's
temperature, renormalised means.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from evaluation_fixtures import queries_of
from model_fixtures import MODEL, Tool
from trainer_fixtures import CONFIG
from training_fixtures import VARIABLE_MARGIN, TinyData

from trimodal.data.augment import mask_windows
from trimodal.data.clip_index import read_index
from trimodal.evaluation.embeddings import Embeddings
from trimodal.evaluation.text_video import embed_test_set
from trimodal.losses.mined import mined_loss
from trimodal.losses.ranking import pair_loss, variable_margins_of
from trimodal.models.networks import TextCnn, TrimodalNet, WordMean
from trimodal.training.distributed import SINGLE_PROCESS
from trimodal.training.image_audio import FrameSampling, ImageAudioPairs, ImageAudioValidation
from trimodal.training.random_streams import SampleIndex
from trimodal.training.trainer import Trainer


def text_cnn(pooling: str) -> TextCnn:
    torch.manual_seed(0)
    return TextCnn(word_vectors(), replace(MODEL, text_pooling=pooling)).eval()  # type: ignore[arg-type]


def word_vectors() -> torch.Tensor:
    vectors = torch.randn(9, 300, generator=torch.Generator().manual_seed(2))
    vectors[:2] = 0
    return vectors


@pytest.mark.parametrize("words", [1, 4, 5, 9, 13, 16])
def test_pooling_over_words_is_the_mean_of_the_positions_that_hold_any(words: int) -> None:
    over_words, over_all = text_cnn("words"), text_cnn("all")
    ids = torch.zeros(1, 16, dtype=torch.int64)
    ids[0, :words] = torch.randint(1, 9, (words,), generator=torch.Generator().manual_seed(words))
    covered = -(-words // 4)  # a position covers four words
    pooled: list[torch.Tensor] = []
    for net in (over_words, over_all):
        pooled.append(net(ids))
    positions: list[torch.Tensor] = []
    over_all.norms[5].register_forward_hook(lambda *args: positions.append(args[2]))
    over_all(ids)
    last = torch.nn.functional.pad(torch.relu(positions[0]), (0, 1))
    four = torch.nn.functional.max_pool1d(last, 2)
    torch.testing.assert_close(pooled[0], four[..., :covered].mean(dim=2))
    torch.testing.assert_close(pooled[1], four.mean(dim=2))


def test_pooling_of_full_and_empty_captions() -> None:
    full = torch.full((2, 16), 3)
    torch.testing.assert_close(text_cnn("words")(full), text_cnn("all")(full))
    empty = text_cnn("words")(torch.zeros(1, 16, dtype=torch.int64))
    assert torch.isfinite(empty).all()


def test_the_mean_of_a_captions_words_leaves_padding_out() -> None:
    net = WordMean(word_vectors(), replace(MODEL, text_network="mean"))
    ids = torch.tensor([[3, 5, 5, 1] + [0] * 12, [0] * 16, [4] * 16])
    by_hand = (net.vectors[3] + 2 * net.vectors[5]) / 4
    torch.testing.assert_close(
        net.pool(net.vectors[ids], ids != 0),
        torch.stack([by_hand, torch.zeros(300), net.vectors[4]]),
    )
    shuffled = ids[:1, torch.randperm(16, generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(net(shuffled), net(ids[:1]))
    assert torch.isfinite(net(ids)).all()


@pytest.mark.parametrize("text_network", ["cnn", "mean"])
def test_trained_word_vectors_move_and_are_part_of_the_state(text_network: str) -> None:
    model = replace(MODEL, text_network=text_network, word_vectors="trained")  # type: ignore[arg-type]
    network = TrimodalNet(model, word_vectors())
    assert "text.backbone.vectors" in network.state_dict()
    trainer = Trainer(network, CONFIG, VARIABLE_MARGIN, SINGLE_PROCESS)
    audio_batch, (images, ids) = random_batch(30)
    ids[ids == 7] = 6
    trainer.step(audio_batch, (images, ids))
    moved = (network.text.backbone.vectors.detach() - word_vectors()).abs().amax(dim=1) > 1e-6
    assert moved[ids.unique()[ids.unique() > 1]].all()


def test_dropout_is_on_image_and_audio_features_in_training_alone() -> None:
    network = TrimodalNet(replace(MODEL, dropout=0.5), word_vectors())
    (pixels, windows), (_, ids) = random_batch(30)
    for net, inputs in ((network.image, pixels.float()), (network.audio, windows)):
        dropped: list[torch.Tensor] = []
        net.head.register_forward_pre_hook(
            lambda _, inputs, dropped=dropped: dropped.append(inputs[0])
        )
        assert not torch.equal(net(inputs), net(inputs))
        assert 0.2 < (dropped[0] == 0).float().mean() < 0.95
        net.eval()
        assert torch.equal(net(inputs), net(inputs))
    network.text.eval()
    assert torch.equal(network.text(ids), network.text(ids))


def test_a_linear_head_is_one_layer() -> None:
    network = TrimodalNet(replace(MODEL, head="linear"), word_vectors())
    for net, features in ((network.image, 16), (network.audio, 16), (network.text, 512)):
        assert {name: p.shape for name, p in net.head.named_parameters()} == {
            "weight": (256, features), "bias": (256,),
        }  # fmt: skip


def hidden_by_masks(
    seeds: Sequence[int], mels: int, columns: int, **limits: int
) -> npt.NDArray[np.bool_]:
    """Which values of windows the masks of these seeds change; the others must stay as they are."""
    windows = torch.arange(len(seeds) * mels * columns).float().view(-1, 1, mels, columns) + 0.25
    masked = windows.clone()
    mask_windows(masked, seeds, **limits)
    hidden: npt.NDArray[np.bool_] = (masked != windows)[:, 0].numpy()
    return hidden


def test_a_mask_is_one_block_of_columns_and_one_of_mels_filled_with_the_windows_mean() -> None:
    windows = torch.rand(200, 1, 8, 20, generator=torch.Generator().manual_seed(0))
    masked = windows.clone()
    mask_windows(masked, range(200), max_columns=5, max_mels=3)
    both = 0
    for before, after in zip(windows[:, 0], masked[:, 0], strict=True):
        hidden = before != after
        columns, mels = hidden.all(0), hidden.all(1)
        assert torch.equal(hidden, columns[None, :] | mels[:, None])
        for lines, most in ((columns, 5), (mels, 3)):
            assert lines.sum() <= most
            assert (lines.int().diff() == 1).sum() + lines[0] <= 1
        torch.testing.assert_close(after[hidden], before.mean().expand(int(hidden.sum())))
        both += bool(columns.any() and mels.any())
    assert both > 100


def test_masks_have_every_width_and_position() -> None:
    hidden = hidden_by_masks(range(2000), 6, 10, max_columns=3, max_mels=99)
    fully_masked = hidden.all(axis=(1, 2))
    assert 200 < fully_masked.sum() < 400  # a seventh: all six mels
    columns = hidden.all(axis=1)[~fully_masked]
    widths = columns.sum(axis=1)
    assert set(widths) == {0, 1, 2, 3}
    assert (np.bincount(widths) > 300).all()
    assert columns.any(axis=0).tolist() == [True] * 9 + [False]
    assert not hidden_by_masks(range(50), 6, 10, max_columns=0, max_mels=0).any()


def test_a_windows_masks_depend_on_its_seed_alone() -> None:
    """Not on the other windows of its batch, nor on PyTorch's generator, whose state they keep."""
    limits = {"max_columns": 5, "max_mels": 3}
    state = torch.get_rng_state()
    together = hidden_by_masks([3, 1, 4, 1], 8, 20, **limits)
    for seed, hidden in zip([3, 1, 4, 1], together, strict=True):
        assert np.array_equal(hidden_by_masks([seed], 8, 20, **limits)[0], hidden)
    assert torch.equal(torch.get_rng_state(), state)
    assert not np.array_equal(together[0], together[1])


SAMPLING = FrameSampling(first_frame=2, last_frame=8, validation_frame=4)


def pairs_of(data: TinyData, **masks: float) -> ImageAudioPairs:
    augment = replace(data.augment, **masks)  # type: ignore[arg-type]
    clips = read_index(data.av_dir, "train", data.mel)
    return ImageAudioPairs(clips, SAMPLING, data.front_end, augment, 1)


def validation_of(data: TinyData, **masks: float) -> ImageAudioValidation:
    augment = replace(data.augment, **masks)  # type: ignore[arg-type]
    clips = read_index(data.av_dir, "train", data.mel)
    return ImageAudioValidation(clips, SAMPLING, data.front_end, augment)


def test_training_windows_are_masked_anew_each_round_and_validation_is_not(
    tiny_data: TinyData,
) -> None:
    masks = {"mask_seconds": 1.0, "mask_mels": 4}
    masked, plain = pairs_of(tiny_data, **masks), pairs_of(tiny_data)
    rounds = [
        [SampleIndex(round=number, sample=sample) for sample in range(7)] for number in (0, 1)
    ]
    hidden = []
    for indices in rounds:
        images, windows = masked.__getitems__(indices)
        plain_images, plain_windows = plain.__getitems__(indices)
        assert torch.equal(images, plain_images)
        hidden.append(windows != plain_windows)
        assert hidden[-1].any()
    assert not torch.equal(*hidden)
    again = masked.__getitems__(rounds[0])[1]
    assert torch.equal(again != plain.__getitems__(rounds[0])[1], hidden[0])
    rows = range(7)
    validation = validation_of(tiny_data, **masks).__getitems__(rows)
    assert torch.equal(validation[1], validation_of(tiny_data).__getitems__(rows)[1])


def random_batch(columns: int) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    pixels = torch.randint(0, 255, (4, 3, 24, 24), dtype=torch.uint8)
    windows, ids = torch.rand(4, 1, 16, columns), torch.randint(0, 5, (4, 16))
    return (pixels, windows), (pixels.flip(0), ids)


@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_rates_warm_up_linearly_and_then_follow_the_schedule(warmup: int) -> None:
    config = replace(CONFIG, warmup_steps=warmup, rate_step_epochs=1, rate_decay=0.1)
    trainer = Trainer(
        TrimodalNet(MODEL, torch.randn(5, 300)), config, VARIABLE_MARGIN, SINGLE_PROCESS
    )
    rates = []
    for _ in range(3):
        for _ in range(3):
            rates.append(trainer._optimiser.param_groups[0]["lr"] / config.image_rate_factor)
            trainer.step(*random_batch(30))
        trainer.end_epoch()
    decay = [10.0 ** -(step // 3) for step in range(9)]
    ramp = [min(1.0, (step + 1) / max(1, warmup)) for step in range(9)]
    expected = [config.learning_rate * d * r for d, r in zip(decay, ramp, strict=True)]
    assert rates == pytest.approx(expected)


def test_the_temperature_divides_the_similarity() -> None:
    similarity = torch.tensor([[0.9, 0.0, -0.9]])
    warm, cold = variable_margins_of(similarity, 0.4), variable_margins_of(similarity, 0.4, 0.1)
    assert warm[0].tolist() == pytest.approx([0.4 / (1 + np.exp(s)) for s in (0.9, 0, -0.9)])
    assert cold[0].tolist() == pytest.approx([0.4 / (1 + np.exp(s * 10)) for s in (0.9, 0, -0.9)])


def test_losses_pass_the_margins_temperature_on() -> None:
    rows = torch.nn.functional.normalize(torch.randn(2, 6, 5, dtype=torch.float64), dim=2)
    image, other = rows
    margins = 0.4 * torch.sigmoid(-(image @ image.T) / 0.2)
    scores = image @ other.T
    image_hinges = torch.relu(scores - scores.diagonal()[:, None] + margins)
    other_hinges = torch.relu(scores.T - scores.diagonal()[:, None] + 0.2)
    for hinges in (image_hinges, other_hinges):
        hinges.fill_diagonal_(0)
    options = {"margin": 0.2, "image_variable_margin": 0.4, "margin_temperature": 0.2}
    ranking = pair_loss(image, other, reduction="sum", **options)  # type: ignore[arg-type]
    torch.testing.assert_close(ranking, (image_hinges.sum() + other_hinges.sum()) / 6)
    hardest = mined_loss(image, other, mining="hardest", **options)  # type: ignore[arg-type]
    torch.testing.assert_close(
        hardest, (image_hinges.amax(1).sum() + other_hinges.amax(1).sum()) / 6
    )


def test_means_are_made_unit_vectors_on_request(tool: Tool, tiny_data: TinyData) -> None:
    clips = list(read_index(tiny_data.av_dir, "test", tiny_data.mel))

    def embed(*, renormalise: bool) -> Embeddings:
        return embed_test_set(
            tool.network, queries_of(len(clips)), clips,
            frames_per_video=4, renormalise=renormalise, front_end=tiny_data.front_end,
            augment=tiny_data.augment, world=SINGLE_PROCESS,
        )  # fmt: skip

    means, units = embed(renormalise=False), embed(renormalise=True)
    for before, after in ((means.image, units.image), (means.audio, units.audio)):
        lengths = np.linalg.norm(before, axis=1, keepdims=True)
        assert (lengths < 0.9999).any()
        np.testing.assert_allclose(after, before / np.maximum(lengths, 1e-12), rtol=1e-5)
