"""The computations of experiments/real, on synthetic data."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from experiments.real import clips, flickr8k
from experiments.real.prepared import Captioned
from experiments.real.recipes import (
    Moments,
    Recipe,
    best_recipe,
    ladder,
    papers_recipe,
    train,
    with_margin,
)

WORDS, FEATURES = 40, 1280


def world(images: int, seed: int, captions: int = 3) -> tuple[Captioned, np.ndarray]:
    """Pictures show three of forty things; each caption names them, in some order."""
    rng = np.random.default_rng(seed)
    looks = np.random.default_rng(0).standard_normal((WORDS, FEATURES))
    vectors = np.random.default_rng(1).standard_normal((WORDS + 2, 300)).astype(np.float32)
    vectors[:2] = 0
    things = np.stack([rng.choice(WORDS, 3, replace=False) for _ in range(images)])
    ids = np.zeros((images * captions, 16), np.int64)
    for row in range(len(ids)):
        ids[row, :3] = rng.permutation(things[row // captions]) + 2
    features = looks[things].mean(axis=1)[:, None].repeat(2, axis=1).astype(np.float16)
    first = np.arange(0, len(ids) + 1, captions)
    return Captioned(features=features, token_ids=ids, first=first), vectors


def test_the_owner_of_a_caption_is_its_image() -> None:
    images = replace(world(3, 1)[0], first=np.array([0, 2, 3, 9]))
    assert images.owner.tolist() == [0, 0, 1, 2, 2, 2, 2, 2, 2]


def test_each_rung_changes_one_thing() -> None:
    rungs = ladder()
    assert rungs[0] == papers_recipe()
    assert rungs[-1] == best_recipe()
    for before, after in pairwise(rungs):
        changed = [
            key
            for part in ("model", "loss")
            for key in getattr(before, part).__dataclass_fields__
            if getattr(getattr(before, part), key) != getattr(getattr(after, part), key)
        ]
        assert len(changed) == 1


def test_a_margin_mode_comes_with_hinges() -> None:
    recipe = with_margin(best_recipe(), "variable")
    assert (recipe.loss.kind, recipe.loss.margin_mode) == ("hinges", "variable")
    assert recipe.model == best_recipe().model


@pytest.mark.parametrize("recipe", [papers_recipe(), best_recipe()], ids=["paper's", "ours"])
def test_a_recipe_learns_and_the_same_seed_repeats_it(recipe: Recipe) -> None:
    images, vectors = world(600, 2)
    unseen, _ = world(50, 3)
    short = replace(recipe, epochs=10)
    tested = flickr8k.test(train(short, images, vectors, 5), unseen)
    assert tested["text_to_image"].shape == (150,)
    assert tested["image_to_text"].shape == (50,)
    assert np.median(tested["text_to_image"]) < 10  # by chance: 25.5
    once, again = (
        flickr8k.test(train(replace(recipe, epochs=1), images, vectors, 5), unseen)
        for _ in range(2)
    )
    np.testing.assert_array_equal(again["text_to_image"], once["text_to_image"])


def test_captions_are_ranked_among_images_and_images_among_captions() -> None:
    images, vectors = world(20, 4)
    network = train(replace(best_recipe(), epochs=1), world(512, 2)[0], vectors, 1)
    found = flickr8k.test(network, images)
    with torch.inference_mode():
        pictures = network.image.from_features(torch.from_numpy(images.features[:, 0]).float())
        captions = network.text(torch.from_numpy(images.token_ids))
    scores = (captions @ pictures.T).tolist()
    by_hand = [1 + sum(s > row[i // 3] for s in row) for i, row in enumerate(scores)]
    assert found["text_to_image"].tolist() == by_hand
    columns = list(zip(*scores, strict=True))
    best = [max(c[3 * i : 3 * i + 3]) for i, c in enumerate(columns)]
    by_hand = [1 + sum(s > best[i] for s in column) for i, column in enumerate(columns)]
    assert found["image_to_text"].tolist() == by_hand


def test_clips_train_the_audio_network_beside_captions() -> None:
    images, vectors = world(512, 2)
    rng = torch.Generator().manual_seed(1)
    moments = [
        Moments(
            features=torch.randn(2, 2, FEATURES, generator=rng),
            windows=torch.rand(2, 1, 16, 40, generator=rng),
        )
        for _ in range(6)
    ]
    recipe = replace(papers_recipe(), epochs=1)
    alone, beside = (train(recipe, images, vectors, 1, seen) for seen in ((), moments))
    for name, weights in alone.audio.named_parameters():
        assert not torch.equal(weights, beside.audio.state_dict()[name]), name


def test_folds_share_no_clip_and_hold_all() -> None:
    dealt = clips.folds(60, seed=3)
    assert [len(fold) for fold in dealt] == [12] * 5
    assert sorted(np.concatenate(dealt)) == list(range(60))
    assert not all(np.array_equal(a, b) for a, b in zip(dealt, clips.folds(60, 4), strict=True))


def test_a_clip_is_ranked_by_a_model_that_never_saw_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that remember the clips they were trained on, and clips that are their own rank."""
    monkeypatch.setattr(clips, "train", lambda *given: list(given[-1]))

    def ranked(seen: list[int], _: object, tested: list[int]) -> dict[str, np.ndarray]:
        assert sorted([*seen, *tested]) == list(range(60))
        return {search: np.array(tested, float) for search in clips.SEARCHES}

    monkeypatch.setattr(clips, "_test", ranked)
    data = SimpleNamespace(
        clips=list(range(60)), train=None, vocabulary=SimpleNamespace(vectors=None)
    )
    found = clips._cross_validate(best_recipe(), data, range(60), 1)  # type: ignore[arg-type]
    for values in found.values():
        assert values.tolist() == list(range(60))


def test_a_mean_over_divisions_is_a_clips_own() -> None:
    first, second = (
        {search: np.array(ranks, float) for search in clips.SEARCHES}
        for ranks in ([1, 4, 12], [3, 1, 12])
    )
    means = clips._mean_over([first, second])["text_to_audio"]
    assert means["R@1"].tolist() == [50, 50, 0]
    assert means["R@5"].tolist() == [100, 100, 0]
    assert means["MeanR"].tolist() == [2, 2.5, 12]
    interval = clips._interval(means["MeanR"])
    assert interval["low"] < interval["mean"] == 5.5 < interval["high"]
