"""Decoding, the centre crop and normalising, against PIL and torchvision."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from test_augment import PLAIN, distinct_pixels, every_level
from torchvision.transforms.v2 import functional as tv

from trimodal.models.image_input import ImageInput
from trimodal.models.preprocessing import centre_views, decode_jpeg


def jpeg(pixels: np.ndarray, file_format: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format)
    return buffer.getvalue()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 9), (9, 8), (5, 5), (7, 11), (6, 10)])
def test_centre_view_is_torchvisions(height: int, width: int) -> None:
    pixels = distinct_pixels(height, width)
    assert torch.equal(centre_views([pixels], PLAIN)[0], tv.center_crop(pixels, [5, 5]))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_decoded_pixels_are_pils(mode: str) -> None:
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8))
    content = jpeg(np.array(coarse.resize((48, 37), Image.Resampling.BICUBIC).convert(mode)))
    expected = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
    pixels = decode_jpeg(content)
    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), expected)


def test_what_is_not_a_complete_jpeg_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    complete = jpeg(noise)
    decode_jpeg(complete)
    for content in (
        b"",
        complete[:-1],
        complete[: len(complete) // 2],
        complete[9:],
        jpeg(noise, "PNG"),
    ):
        with pytest.raises(ValueError, match="JPEG"):
            decode_jpeg(content)


def test_normalised_pixels_are_torchvisions_and_the_input_is_unchanged() -> None:
    pixels = torch.stack([every_level(), every_level().flip(0)])
    before = pixels.clone()
    scaled = tv.to_dtype(pixels, torch.float32, scale=True)
    expected = tv.normalize(scaled, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    assert torch.allclose(ImageInput().prepare(pixels), expected, rtol=0, atol=1e-6)
    assert torch.equal(pixels, before)
