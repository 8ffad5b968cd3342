"""Names from annotation files cannot leave their folder, and records refuse what is empty."""

import re

import pytest

from trimodal.core.records import (
    CaptionedImage,
    Clip,
    DataError,
    Query,
    check_file_name,
    check_name,
)

ESCAPES = ["", ".", "..", "../a", "a/b", "/etc", "a\\b", "a\0", "a\n", "\na", "a b", "é", "а"]  # noqa: RUF001


@pytest.mark.parametrize("name", [*ESCAPES, "a.b", "a" * 129])
def test_unsafe_name_is_refused_and_quoted(name: str) -> None:
    with pytest.raises(DataError, match=re.escape(f"here: {name!r}")):
        check_name(name, "here")


@pytest.mark.parametrize("name", [*ESCAPES, ".jpg", "a.jpg/..", "a.jpg\n", "a\0.jpg", "-a.jpg"])
def test_unsafe_file_name_is_refused_and_quoted(name: str) -> None:
    with pytest.raises(DataError, match=re.escape(f"here: {name!r}")):
        check_file_name(name, "here")


@pytest.mark.parametrize(
    "name", ["-1pRmoJIGQc_000010", "_UsNATz1sgE_000250", "video7020", "a" * 128]
)
def test_safe_name_is_returned(name: str) -> None:
    assert check_name(name, "here") == name


@pytest.mark.parametrize("name", ["000000000139.jpg", "1000092795_a1.jpg", "_a.b.png", "noending"])
def test_safe_file_name_is_returned(name: str) -> None:
    assert check_file_name(name, "here") == name


def test_clip_refuses_an_unsafe_id() -> None:
    with pytest.raises(DataError, match=r"'\.\./x'"):
        Clip(clip_id="../x", source="vggsound", split="train", label="")


@pytest.mark.parametrize("name", ["", "-1pRmoJIGQc", "_UsNATz1sgE", "00000000000"])
def test_clip_takes_a_youtube_id_or_none(name: str) -> None:
    clip = Clip(clip_id="x", source="vggsound", split="train", label="", youtube_id=name)
    assert clip.youtube_id == name


@pytest.mark.parametrize("name", ["video7020", "a" * 10, "a" * 12, "a" * 11 + "\n", "é" * 11])
def test_clip_refuses_an_invalid_youtube_id(name: str) -> None:
    with pytest.raises(DataError, match=re.escape(f"{name!r} is not a YouTube id")):
        Clip(clip_id="x", source="vggsound", split="train", label="", youtube_id=name)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"image_id": "a/b"}, "'a/b'"),
        ({"file_name": "../a.jpg"}, r"'\.\./a\.jpg'"),
        ({"captions": ()}, "a1 has no caption"),
    ],
)
def test_captioned_image_refuses(change: dict[str, object], named: str) -> None:
    good = {
        "image_id": "a1", "split": "train", "source": "coco", "file_name": "a.jpg",
        "captions": ("a dog",),
    }  # fmt: skip
    CaptionedImage(**good)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=named):
        CaptionedImage(**(good | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"query_id": "r/0"}, "'r/0'"),
        ({"video_id": ".."}, r"'\.\.'"),
        ({"sentence": " \n"}, "r0: empty sentence"),
    ],
)
def test_query_refuses(change: dict[str, str], named: str) -> None:
    good = {"query_id": "r0", "video_id": "video1", "sentence": "a dog"}
    Query(**good)
    with pytest.raises(DataError, match=named):
        Query(**(good | change))
