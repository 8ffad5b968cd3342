"""Random streams of training: no two are alike, and a number depends only on its key."""

import multiprocessing
from itertools import product

import numpy as np
import pytest

from trimodal.data.augment import random_fields
from trimodal.training.random_streams import (
    RandomFields,
    RandomStream,
    SampleIndex,
)

SEEDS = (0, 1, 2, 3, 2020)
ROUNDS = range(4)
RECORD = random_fields("frame", "top", "left", "flip", "brightness", "saturation")


def first_numbers(stream: RandomStream, seed: int, number: int) -> tuple[float, ...]:
    return tuple(stream.generator(seed, number).random(8).tolist())


@pytest.mark.parametrize("seed", SEEDS)
def test_no_stream_repeats_another_in_any_round(seed: int) -> None:
    drawn = {
        first_numbers(stream, seed, number) for stream, number in product(RandomStream, ROUNDS)
    }
    assert len(RandomStream) == 5
    assert len(drawn) == len(RandomStream) * len(ROUNDS)


def test_no_seed_repeats_another() -> None:
    keys = list(product(RandomStream, SEEDS, ROUNDS))
    assert len({first_numbers(*key) for key in keys}) == len(keys)


def test_keys_have_one_length() -> None:
    """NumPy pads a shorter key with zeros, so that it is the beginning of a longer one."""
    lengths = set()
    for stream, number in product(RandomStream, ROUNDS):
        sequence = stream.generator(1, number).bit_generator.seed_seq
        assert isinstance(sequence, np.random.SeedSequence)
        assert isinstance(sequence.entropy, list)
        lengths.add(len(sequence.entropy))
    assert len(lengths) == 1
    shorter, longer = (np.random.default_rng(key).random() for key in ([1, 2, 0], [1, 2, 0, 0]))
    assert shorter == longer


def test_fields_differ_between_samples_and_come_back_in_any_order() -> None:
    fields = RandomFields(RandomStream.CLIP_VIEWS, 5, 50, RECORD)
    rounds = [[SampleIndex(number, sample) for sample in range(50)] for number in range(3)]
    drawn = [fields.of(indices).tolist() for indices in rounds]
    flat = np.array(drawn).reshape(150, 6)
    assert len(np.unique(flat, axis=0)) == 150
    assert 0 <= flat.min() < 0.05 < 0.95 < flat.max() < 1
    for number, sample in [(2, 7), (0, 49), (1, 0), (0, 0)]:
        assert fields.of([SampleIndex(number, sample)]).tolist() == [drawn[number][sample]]
    longer = RandomFields(RandomStream.CLIP_VIEWS, 5, 60, RECORD)
    two = [SampleIndex(1, 49), SampleIndex(1, 3)]
    assert longer.of(two).tolist() == [drawn[1][49], drawn[1][3]]
    for stream in set(RandomStream) - {RandomStream.CLIP_VIEWS}:
        other = RandomFields(stream, 5, 50, RECORD)
        assert other.of([SampleIndex(1, 49)]).tolist() != [drawn[1][49]]


def test_another_process_has_the_same_fields() -> None:
    """One that starts with a later round, as a loader's worker may."""
    rounds = list(product(RandomStream, ROUNDS))
    expected = [fields_of_round(job) for job in rounds]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        from_worker = pool.map(fields_of_round, rounds[::-1])
    assert from_worker == expected[::-1]


def fields_of_round(job: tuple[RandomStream, int]) -> list[tuple[float, ...]]:
    stream, number = job
    drawn: list[tuple[float, ...]] = (
        RandomFields(stream, 5, 20, RECORD).of(indices_of(number)).tolist()
    )
    return drawn


def indices_of(number: int) -> list[SampleIndex]:
    return [SampleIndex(number, sample) for sample in (7, 0, 19)]
