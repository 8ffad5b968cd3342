"""Positions of frames, windows and columns, also in short clips."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimodal.core.timing import (
    FramePosition,
    evenly_spaced_positions,
    first_column,
    frame_centre_seconds,
    frame_count,
    middle_position,
    training_positions,
    window_columns,
    window_fits,
)

milliseconds = st.integers(501, 400_000)


def training(duration: float) -> list[FramePosition]:
    return list(training_positions(frame_count(duration), duration, 3.0, 2, 8))


def test_frame_n_shows_second_n_minus_a_half() -> None:
    assert [frame_centre_seconds(frame) for frame in (1, 2, 10)] == [0.5, 1.5, 9.5]


@pytest.mark.parametrize("frame", [0, -1])
def test_frames_are_numbered_from_1(frame: int) -> None:
    with pytest.raises(ValueError, match="numbered from 1"):
        frame_centre_seconds(frame)


@pytest.mark.parametrize(
    ("duration", "frames"),
    [(-1.0, 0), (0.0, 0), (0.5, 0), (0.51, 1), (1.0, 1), (1.5, 1), (1.51, 2), (9.5, 9),
     (9.51, 10), (10.0, 10), (10.5, 10)],
)  # fmt: skip
def test_a_frame_counts_if_its_centre_is_before_the_end(duration: float, frames: int) -> None:
    assert frame_count(duration) == frames


@given(milliseconds)
def test_frame_count_is_the_number_of_centres_before_the_end(duration_ms: int) -> None:
    centres = [frame_centre_seconds(frame) for frame in range(1, 402)]
    inside = sum(centre < duration_ms / 1000 for centre in centres)
    assert frame_count(duration_ms / 1000) == inside


@pytest.mark.parametrize(
    ("centre", "duration", "fits"),
    [(1.5, 3.0, True), (1.5, 10.0, True), (8.5, 10.0, True), (1.46, 10.0, True),
     (1.44, 10.0, False), (8.54, 10.0, True), (8.56, 10.0, False), (1.5, 2.96, True),
     (1.5, 2.94, False)],
)  # fmt: skip
def test_a_window_fits_within_a_twentieth_of_a_second(
    centre: float, duration: float, fits: bool
) -> None:
    assert window_fits(centre, 3.0, duration) is fits


@pytest.mark.parametrize(
    ("duration", "frames"),
    [(10.0, range(2, 9)), (9.6, range(2, 9)), (9.0, range(2, 9)), (8.9, range(2, 8)),
     (30.0, range(2, 9)), (4.0, [2, 3]), (3.0, [2])],
)  # fmt: skip
def test_training_samples_frames_2_to_8_whose_window_fits(
    duration: float, frames: list[int]
) -> None:
    positions = [FramePosition(frame=frame, centre_seconds=frame - 0.5) for frame in frames]
    assert training(duration) == positions


def test_training_samples_existing_frames_only() -> None:
    """Audio may be longer than video."""
    assert [position.frame for position in training_positions(5, 10.0, 3.0, 2, 8)] == [2, 3, 4, 5]


@pytest.mark.parametrize("duration", [2.9, 2.0, 0.6])
def test_clips_shorter_than_a_window_train_on_their_middle(duration: float) -> None:
    (position,) = training(duration)
    assert position == middle_position(frame_count(duration), duration)
    assert position.centre_seconds == duration / 2


@given(milliseconds)
def test_the_middle_frame_is_the_one_nearest_to_the_middle(duration_ms: int) -> None:
    duration = duration_ms / 1000
    position = middle_position(frame_count(duration), duration)
    assert abs(frame_centre_seconds(position.frame) - position.centre_seconds) <= 0.5


@pytest.mark.parametrize("frames", range(4, 64))
def test_test_positions_are_those_of_the_authors_code(frames: int) -> None:
    expected = np.linspace(2, frames - 2, 4)
    positions = evenly_spaced_positions(frames, frames - 0.2, 3.0, 4)
    assert [position.frame for position in positions] == [int(position) for position in expected]
    centres = [position.centre_seconds for position in positions]
    assert centres == pytest.approx(expected - 0.5)


def test_test_positions_of_ten_seconds() -> None:
    positions = evenly_spaced_positions(10, 10.0, 3.0, 4)
    assert positions == [FramePosition(frame=n, centre_seconds=n - 0.5) for n in (2, 4, 6, 8)]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_number_of_test_positions_is_the_requested_one(count: int) -> None:
    positions = evenly_spaced_positions(10, 10.0, 3.0, count)
    assert len(positions) == count
    assert positions[0] == FramePosition(frame=2, centre_seconds=1.5)
    assert positions[-1].frame == (2 if count == 1 else 8)


@pytest.mark.parametrize("duration", [2.95, 3.0, 3.2, 3.5])
def test_windows_fit_in_videos_of_three_frames(duration: float) -> None:
    assert frame_count(duration) == 3
    positions = evenly_spaced_positions(3, duration, 3.0, 4)
    assert all(window_fits(position.centre_seconds, 3.0, duration) for position in positions)
    assert positions[0].centre_seconds == 1.5
    assert positions[-1].centre_seconds == pytest.approx(max(1.5, duration - 1.5))
    assert {position.frame for position in positions} == {2}


@pytest.mark.parametrize("duration", [2.0, 2.8])
def test_videos_shorter_than_a_window_have_all_test_positions_in_their_middle(
    duration: float,
) -> None:
    frames = frame_count(duration)
    assert (
        evenly_spaced_positions(frames, duration, 3.0, 4) == [middle_position(frames, duration)] * 4
    )


@given(milliseconds, st.integers(1, 8))
def test_every_position_has_a_frame_of_the_video(duration_ms: int, count: int) -> None:
    duration = duration_ms / 1000
    frames = frame_count(duration)
    evenly_spaced = evenly_spaced_positions(frames, duration, 3.0, count)
    assert len(evenly_spaced) == count
    for position in [*evenly_spaced, *training(duration)]:
        assert 1 <= position.frame <= frames


@given(milliseconds | st.integers(2800, 3100))
def test_test_windows_fit_or_are_all_in_the_middle(duration_ms: int) -> None:
    duration = duration_ms / 1000
    frames = frame_count(duration)
    positions = evenly_spaced_positions(frames, duration, 3.0, 4)
    if positions != [middle_position(frames, duration)] * 4:
        assert all(window_fits(position.centre_seconds, 3.0, duration) for position in positions)


def test_videos_without_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="without frames"):
        training_positions(0, 0.4, 3.0, 2, 8)
    with pytest.raises(ValueError, match="without frames"):
        evenly_spaced_positions(0, 0.4, 3.0, 4)


@pytest.mark.parametrize(
    ("window_seconds", "hop_seconds", "columns"),
    [(3.0, 441 / 44100, 301), (3.0, 320 / 16000, 151), (1.0, 0.1, 11)],
)
def test_a_windows_columns_include_both_edges(
    window_seconds: float, hop_seconds: float, columns: int
) -> None:
    assert window_columns(window_seconds, hop_seconds) == columns


@pytest.mark.parametrize(
    ("centre", "column"), [(1.5, 0), (2.5, 100), (0.5, -100), (1.504, 0), (1.506, 1), (8.5, 700)]
)
def test_a_window_starts_at_the_nearest_column(centre: float, column: int) -> None:
    assert first_column(centre, 3.0, 0.01) == column
