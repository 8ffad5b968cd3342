"""Which clips train and which validate (docs/method.md, Data)."""

import random
from collections.abc import Mapping


def hold_out(clip_ids: list[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    """Splits sorted ids into train and validation as the authors' code does: shuffled by ``seed``,
    the last ``share`` held out (at least two: a ranking loss needs a negative).
    """
    shuffled = list(clip_ids)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - a split, not a secret
    held = max(2, int(share * len(shuffled)))
    return sorted(shuffled[:-held]), sorted(shuffled[-held:])


def keep_videos_whole(
    train: list[str], val: list[str], youtube_ids: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Moves every training clip that shares its YouTube video with a validation clip over to
    validation: pictures that training saw must not choose the epoch. The authors' code does not.
    """
    held = {youtube_ids[name] for name in val} - {""}
    moved = {name for name in train if youtube_ids[name] in held}
    return [name for name in train if name not in moved], sorted([*val, *moved])
