"""The split of the clips into training and validation (docs/method.md, Data)."""

import random
from collections.abc import Mapping


def hold_out(clip_ids: list[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    """Splits sorted ids into training and validation as the authors' code does: shuffled by
    ``seed``, the last ``share`` held out (at least two: a ranking loss needs a negative).
    """
    shuffled = list(clip_ids)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - a split, not a secret
    count = max(2, int(share * len(shuffled)))
    return sorted(shuffled[:-count]), sorted(shuffled[-count:])


def keep_videos_together(
    train: list[str], val: list[str], youtube_ids: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Moves training clips that share a YouTube video with a validation clip to validation, so
    that frames seen in training do not choose the epoch. The authors' code does not do this.
    """
    held_out = {youtube_ids[name] for name in val} - {""}
    moved = {name for name in train if youtube_ids[name] in held_out}
    return [name for name in train if name not in moved], sorted([*val, *moved])
