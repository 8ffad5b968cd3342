"""The order of a stream: every sample once a pass, shard by shard, for any readers."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimodal.core.records import DataError
from trimodal.training.random_streams import RandomStream
from trimodal.training.rounds import Rows, ShardRounds
from trimodal.training.sampler import EndlessBatches

ORDER = RandomStream.CLIP_ORDER


def shards_of(*sizes: int) -> np.ndarray:
    return np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)


@settings(max_examples=50)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12).filter(lambda s: sum(s) > 1),
    batch=st.integers(1, 4), mixed=st.integers(1, 5), passes=st.integers(1, 3),
    workers=st.integers(1, 3), ranks=st.integers(1, 3), number=st.integers(0, 3),
)  # fmt: skip
def test_every_sample_comes_once_a_pass_and_never_twice_in_a_batch(
    sizes: list[int], batch: int, mixed: int, passes: int, workers: int, ranks: int, number: int
) -> None:
    samples = sum(sizes)
    batch = 2 * ranks * batch
    if samples < batch:
        ranks, batch = 1, min(batch, samples)
    rounds = ShardRounds(
        shards_of(*sizes), batch, 7, ORDER, shuffle_shards=mixed, passes=passes, workers=workers,
        world_size=ranks,
    )  # fmt: skip
    numbers, order = rounds.order(number)
    assert order.shape == (rounds.batches, batch) == (samples // batch * passes, batch)
    assert all(len(set(rows)) == batch for rows in order.tolist())
    for done in range(number * passes, (number + 1) * passes):
        own = order[np.array(numbers) == done]
        assert len(np.unique(own)) == own.size == samples // batch * batch
    again, same = rounds.order(number)
    assert (again, same.tolist()) == (numbers, order.tolist())


def shards_held(order: Rows, shard_of: np.ndarray, worker: int, workers: int) -> list[int]:
    """For each of a reader's batches, how many shards it has seen and will see again."""
    seen = [set(shard_of[rows].tolist()) for rows in order[worker::workers]]
    return [len(set().union(*seen[: k + 1]) & set().union(*seen[k:])) for k in range(len(seen))]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_reader_needs_few_shards_at_a_time(workers: int) -> None:
    """All but its last batches, which mix what is left."""
    shard_of = shards_of(*[50] * 80)
    for passes in (1, 3):
        rounds = ShardRounds(
            shard_of, 20, 1, ORDER, shuffle_shards=4, passes=passes, workers=workers
        )
        _, order = rounds.order(0)
        for worker in range(workers):
            held = shards_held(order[: -2 * workers * passes], shard_of, worker, workers)
            assert max(held) <= 4 + 2 + 4 * (passes > 1) + 1
            assert np.mean(held) > 3  # they are mixed


def test_readers_have_shards_of_their_own() -> None:
    shard_of = shards_of(*[30] * 24)
    rounds = ShardRounds(shard_of, 20, 1, ORDER, shuffle_shards=2, workers=2, world_size=2)
    _, order = rounds.order(0)
    whole = order[:-4]
    parts = [shard_of[whole[w::2, r * 10 : r * 10 + 10]].ravel() for w in (0, 1) for r in (0, 1)]
    for k, one in enumerate(parts):
        for other in parts[k + 1 :]:
            assert not set(one.tolist()) & set(other.tolist())


def test_rounds_differ_and_depend_on_the_seed() -> None:
    def order(seed: int, number: int) -> list[list[int]]:
        rounds = ShardRounds(shards_of(*[10] * 6), 12, seed, ORDER, shuffle_shards=2)
        return rounds.order(number)[1].tolist()  # type: ignore[no-any-return]

    assert order(1, 0) == order(1, 0)
    assert len({str(o) for o in (order(1, 0), order(1, 1), order(2, 0))}) == 3


def test_a_stream_goes_on_where_it_was() -> None:
    rounds = ShardRounds(shards_of(*[7] * 5), 6, 1, ORDER, shuffle_shards=2, passes=2)
    first = list(islice(EndlessBatches(rounds), 40))
    assert list(islice(EndlessBatches(rounds, 23), 17)) == first[23:]
    assert {index.round for batch in first[: rounds.batches] for index in batch} == {0, 1}


def test_a_batch_that_cannot_be_split_is_refused() -> None:
    with pytest.raises(DataError, match=r"train\.batch_size"):
        ShardRounds(shards_of(9), 9, 1, ORDER, shuffle_shards=1, world_size=2)
