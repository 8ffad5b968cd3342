"""Batches: rounds, order, loader workers, validation batches."""

from itertools import islice

import pytest
import torch
from stream_fixtures import (
    ORDER,
    SAMPLING,
    clips_of,
    pairs_of,
    same,
    validation_pairs_of,
)
from torch import Tensor
from training_fixtures import TinyData

from trimodal.core.records import DataError
from trimodal.training.image_audio import ImageAudioValidation
from trimodal.training.loaders import training_loader
from trimodal.training.random_streams import RandomStream, SampleIndex
from trimodal.training.rounds import Rounds, ShuffledRounds
from trimodal.training.sampler import EndlessBatches, validation_batches


def test_number_of_workers_does_not_change_the_batches(tiny_data: TinyData) -> None:
    def first_batches(workers: int) -> list[tuple[Tensor, Tensor]]:
        pairs = pairs_of(tiny_data)
        batches = EndlessBatches(ShuffledRounds(len(pairs), 3, 5, ORDER))
        return list(islice(training_loader(pairs, batches, workers), 5))

    without_workers = first_batches(0)
    assert [batch[0].shape[0] for batch in without_workers] == [3] * 5
    for workers in (1, 2):
        for batch, expected in zip(first_batches(workers), without_workers, strict=True):
            assert same((batch[0], batch[1]), (expected[0], expected[1]))


def first_rounds(rounds: Rounds, number: int) -> list[list[list[SampleIndex]]]:
    drawn = list(islice(EndlessBatches(rounds), number * rounds.batches))
    return [drawn[k * rounds.batches : (k + 1) * rounds.batches] for k in range(number)]


@pytest.mark.parametrize(("samples", "size"), [(12, 4), (13, 4), (2, 2), (7, 7), (5, 512)])
def test_rounds_are_shuffled_and_no_sample_comes_twice(samples: int, size: int) -> None:
    rounds = ShuffledRounds(samples, size, 1, ORDER)
    assert rounds.batch_size == min(samples, size)
    assert rounds.batches == samples // rounds.batch_size
    for number, drawn in enumerate(first_rounds(rounds, 4)):
        assert all(len(batch) == rounds.batch_size for batch in drawn)
        flat = [index for batch in drawn for index in batch]
        assert {index.round for index in flat} == {number}
        samples_seen = {index.sample for index in flat}
        assert len(samples_seen) == len(flat) == rounds.batches * rounds.batch_size
        assert samples_seen <= set(range(samples))


def test_samples_left_over_come_in_later_rounds() -> None:
    rounds = first_rounds(ShuffledRounds(13, 4, 1, ORDER), 12)
    seen = {index.sample for batches in rounds for batch in batches for index in batch}
    assert seen == set(range(13))


def test_order_depends_on_round_seed_and_stream() -> None:
    def order(seed: int, stream: RandomStream, number: int) -> list[int]:
        rounds = first_rounds(ShuffledRounds(40, 40, seed=seed, stream=stream), number + 1)
        return [index.sample for index in rounds[number][0]]

    other = RandomStream.IMAGE_ORDER
    assert order(1, ORDER, 0) == order(1, ORDER, 0)
    different = [
        order(1, ORDER, 0), order(1, ORDER, 1), order(2, ORDER, 0), order(1, other, 0),
        list(range(40)),
    ]  # fmt: skip
    assert len({tuple(one) for one in different}) == 5


@pytest.mark.parametrize("samples", [0, 1])
def test_streams_without_a_negative_are_refused(samples: int) -> None:
    with pytest.raises(DataError, match="two training samples"):
        ShuffledRounds(samples, 4, 1, ORDER)


def test_validation_batches_hold_every_sample_once_in_order(tiny_data: TinyData) -> None:
    """7 samples in batches of 3: the last one would have no negative."""
    pairs = validation_pairs_of(tiny_data, "train")
    assert len(pairs) == 7
    for size, lengths in [(3, [3, 4]), (2, [2, 2, 3]), (4, [4, 3]), (100, [7])]:
        batches = list(validation_batches(pairs, size))
        assert [len(batch[0]) for batch in batches] == lengths
        for k in (0, 1):
            stacked = torch.cat([batch[k] for batch in batches])
            expected = torch.stack([pairs[number][k] for number in range(7)])
            assert torch.equal(stacked, expected)


def test_validation_needs_two_samples(tiny_data: TinyData) -> None:
    single = ImageAudioValidation(
        clips_of(tiny_data)[:1], SAMPLING, tiny_data.front_end, tiny_data.augment
    )
    with pytest.raises(DataError, match="two samples"):
        next(validation_batches(single, 4))
