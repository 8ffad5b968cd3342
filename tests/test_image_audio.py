"""The image-audio stream: which frame is drawn, and the window that belongs to it."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stream_fixtures import (
    SAMPLING,
    clips_of,
    member,
    pairs_of,
    pixels,
    plain_augment,
    read_window,
    shown_second,
    validation_pairs_of,
)
from training_fixtures import TinyData

from trimodal.data.clip_index import IndexedClip
from trimodal.training.image_audio import ImageAudioPairs, ImageAudioValidation
from trimodal.training.random_streams import SampleIndex


def test_pair_is_a_frame_and_the_audio_centred_on_it(tiny_data: TinyData) -> None:
    pairs, clips = pairs_of(tiny_data, plain=True), clips_of(tiny_data)
    for number, clip in enumerate(clips):
        view, window = pairs[SampleIndex(3, number)]
        assert (view.shape, view.dtype) == ((3, 24, 24), torch.uint8)
        centre = shown_second(view) + 0.5
        assert torch.equal(window, read_window(clip, centre, tiny_data.front_end)[0])


def test_training_draws_frames_2_to_8_and_only_those(tiny_data: TinyData) -> None:
    pairs = pairs_of(tiny_data, plain=True)
    drawn = Counter(shown_second(pairs[SampleIndex(k, 0)][0]) + 1 for k in range(140))
    assert set(drawn) == {2, 3, 4, 5, 6, 7, 8}
    assert min(drawn.values()) >= 8


class Clips(list[IndexedClip]):
    """As a ClipTable."""

    def frame_extent(self, row: int, frame: int) -> tuple[Path, int, int]:
        clip = self[row]
        return clip.shard, clip.frame_offsets[frame - 1], clip.frame_sizes[frame - 1]


def test_short_clips_draw_frames_whose_window_fits(tiny_data: TinyData) -> None:
    clip = replace(clips_of(tiny_data)[0], sound_s=4.0)
    plain, front_end = plain_augment(tiny_data), tiny_data.front_end
    pairs = ImageAudioPairs(Clips([clip]), SAMPLING, front_end, plain, seed=5)
    drawn = {shown_second(pairs[SampleIndex(k, 0)][0]) + 1 for k in range(30)}
    assert drawn == {2, 3}
    validation = ImageAudioValidation(Clips([clip]), SAMPLING, front_end, plain)
    assert shown_second(validation[0][0]) + 1 == 3  # the nearest to 4


def test_validation_takes_the_centre_of_frame_4(tiny_data: TinyData) -> None:
    pairs = validation_pairs_of(tiny_data)
    for number, clip in enumerate(clips_of(tiny_data, "val")):
        view, window = pairs[number]
        jpeg = member(clip.shard, f"{clip.clip_id}.04.jpg")
        assert torch.equal(view, pixels(jpeg)[:, 4:28, 4:28])
        assert torch.equal(window, read_window(clip, 3.5, tiny_data.front_end)[0])


@pytest.mark.parametrize("frames_per_clip", [1, 2, 7])
def test_successive_rounds_take_different_frames_of_a_clip(
    frames_per_clip: int, tiny_data: TinyData
) -> None:
    """The seven frames from 2 to 8; from one drawn at random in the first of these rounds."""
    pairs = ImageAudioPairs(
        clips_of(tiny_data), SAMPLING, tiny_data.front_end, plain_augment(tiny_data), seed=5,
        frames_per_clip=frames_per_clip,
    )  # fmt: skip
    drawn = [
        [shown_second(pairs[SampleIndex(number, clip)][0]) for number in range(28)]
        for clip in range(len(pairs))
    ]
    for seconds in drawn:
        for first in range(0, 28, frames_per_clip):
            group = seconds[first : first + frames_per_clip]
            assert len(set(group)) == len(group)
        assert set(seconds) <= set(range(1, 8))
    assert len({tuple(seconds) for seconds in drawn}) > 1
