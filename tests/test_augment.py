"""Random crops, flips and colour jitter, against torchvision."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from configs import config_for_tests
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from trimodal.core.records import DataError
from trimodal.data.augment import VIEW_FIELDS, jitter, random_fields, training_views
from trimodal.models.preprocessing import AugmentConfig, centre_views

PLAIN = config_for_tests(AugmentConfig, crop_px=5, flip=False, brightness=0.0, saturation=0.0)
VIEW_RECORD = random_fields(*VIEW_FIELDS)


def distinct_pixels(height: int = 8, width: int = 9) -> Tensor:
    """An image in which no two values are equal, uint8 (3, height, width)."""
    pixels = np.arange(3 * height * width, dtype=np.uint8).reshape(height, width, 3)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def jittered(pixels: Tensor, brightness: float, saturation: float) -> Tensor:
    """Jitters the image as the middle one of a batch of three."""
    three = np.stack([pixels.flip(0).numpy(), pixels.numpy(), pixels.flip(2).numpy()])
    jitter(three, np.array([0.5, brightness, 1.5]), np.array([1.7, saturation, 0.2]))
    return torch.from_numpy(three[1])


def view_of(pixels: Tensor, config: AugmentConfig, numbers: list[float]) -> Tensor:
    """The view by these random numbers, in a batch with another view of the same image."""
    records = np.array([(0.3, 0.6, 0.7, 0.1, 0.2), tuple(numbers)], VIEW_RECORD)
    return training_views([pixels, pixels], config, records)[1]


def every_level() -> torch.Tensor:
    """4,096 colours, (3, 64, 64): the darkest and the lightest levels among them."""
    steps = np.array([0, 1, 2, 17, 50, 77, 100, 127, 128, 150, 200, 230, 232, 253, 254, 255])
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).astype(np.uint8)
    return torch.from_numpy(colours.reshape(64, 64, 3)).permute(2, 0, 1)


@settings(max_examples=60)
@given(brightness=st.floats(0.01, 1.99), saturation=st.floats(0.01, 1.99))
def test_jitter_is_torchvisions_within_one_level(brightness: float, saturation: float) -> None:
    pixels = every_level()
    expected = tv.adjust_saturation(tv.adjust_brightness(pixels, brightness), saturation)
    actual = jittered(pixels, brightness, saturation)
    apart = (actual.int() - expected.int()).abs()
    assert apart.max() <= 1


@pytest.mark.parametrize("saturation", [0.9, 0.95, 1.03, 1.1])
def test_nine_in_ten_levels_of_the_authors_jitter_are_torchvisions(saturation: float) -> None:
    pixels = every_level()
    for brightness in (0.9, 0.96, 1.02, 1.1):
        expected = tv.adjust_saturation(tv.adjust_brightness(pixels, brightness), saturation)
        actual = jittered(pixels, brightness, saturation)
        assert (actual == expected).float().mean() > 0.9


@pytest.mark.parametrize("brightness", [0.1, 0.9, 0.97, 1.0, 1.05, 1.9])
def test_brightness_is_torchvisions(brightness: float) -> None:
    pixels = every_level()
    actual = jittered(pixels, brightness, 1.0)
    assert torch.equal(actual, tv.adjust_brightness(pixels, brightness))


def test_each_image_of_a_large_batch_has_its_own_factors() -> None:
    """The batch is larger than what is computed at once."""
    pixels = torch.stack([every_level().roll(k, 1) for k in range(25)]).numpy()
    brightness, saturation = np.linspace(0.5, 1.5, 25), np.linspace(1.6, 0.3, 25)
    batch = pixels.copy()
    jitter(batch, brightness, saturation)
    for view, own, b, s in zip(batch, pixels, brightness, saturation, strict=True):
        assert torch.equal(torch.from_numpy(view), jittered(torch.from_numpy(own), b, s))


def test_crops_lie_everywhere_in_the_image() -> None:
    pixels = distinct_pixels()
    for top in range(4):
        for left in range(5):
            numbers = [(top + 0.5) / 4, (left + 0.5) / 5, 0.0, 0.0, 0.0]
            view = view_of(pixels, PLAIN, numbers)
            assert torch.equal(view, pixels[:, top : top + 5, left : left + 5])
            assert view.is_contiguous()
    last = float(np.nextafter(np.float32(1), np.float32(0)))
    assert torch.equal(view_of(pixels, PLAIN, [last] * len(VIEW_FIELDS)), pixels[:, 3:, 4:])


def test_half_of_the_random_numbers_flip() -> None:
    config = replace(PLAIN, crop_px=8, flip=True)
    pixels = distinct_pixels(8, 8)
    for number in (0.0, 0.49):
        flipped = view_of(pixels, config, [0.0, 0.0, number, 0.0, 0.0])
        assert torch.equal(flipped, pixels.flip(2))
    for number in (0.5, 0.99):
        assert torch.equal(view_of(pixels, config, [0.0, 0.0, number, 0.0, 0.0]), pixels)


def test_jitter_spans_the_given_shares() -> None:
    config = replace(PLAIN, crop_px=64, brightness=0.2, saturation=0.3)
    pixels = every_level()
    for number, brightness, saturation in [(0.0, 0.8, 0.7), (0.5, 1.0, 1.0), (0.75, 1.1, 1.15)]:
        view = view_of(pixels, config, [0.0, 0.0, 0.9, number, number])
        assert torch.equal(view, jittered(pixels, brightness, saturation))


def test_images_smaller_than_the_crop_are_refused() -> None:
    for cut in (
        lambda p, c: centre_views([p], c),
        lambda p, c: view_of(p, c, [0.0] * len(VIEW_FIELDS)),
    ):
        with pytest.raises(DataError, match="crop_px 5 exceeds the stored images, 9 x 4"):
            cut(distinct_pixels(4, 9), PLAIN)


@pytest.mark.parametrize("field", ["brightness", "saturation"])
def test_brightness_and_saturation_are_drawn_apart(field: str) -> None:
    """Each field moves its own jitter, by its own strength."""
    config = replace(PLAIN, **{field: 0.5})
    pixels = distinct_pixels()

    def view(**numbers: float) -> Tensor:
        return view_of(pixels, config, [numbers.get(name, 0.5) for name in VIEW_FIELDS])

    other = {"brightness": "saturation", "saturation": "brightness"}[field]
    assert not torch.equal(view(**{field: 0.0}), view(**{field: 0.9}))
    assert torch.equal(view(**{other: 0.0}), view(**{other: 0.9}))
