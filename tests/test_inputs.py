"""What users hand to a model: one or many, of every form, in every method."""

import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_fixtures import Tool
from PIL import Image
from training_fixtures import RATE_HZ, TinyData

from trimodal.core.records import DataError
from trimodal.media.audio_windows import Waveform
from trimodal.media.container import MediaError
from trimodal.search.inputs import QueryError, modality_of

PIXELS = np.random.default_rng(3).integers(0, 256, (48, 80, 3), np.uint8)
SAMPLES = (0.3 * np.sin(np.arange(4 * RATE_HZ) * 0.3)).astype(np.float32)


@pytest.fixture(scope="module")
def files(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    Image.fromarray(PIXELS).save(folder / "a.png")
    with wave.open(str(folder / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((SAMPLES * 32767).astype("<i2").tobytes())
    clips = tiny_data.av_dir.parent / "clips"
    return {
        "image": folder / "a.png", "audio": folder / "a.wav", "video": clips / "9.mp4",
        "silent": clips / "10.mp4",
    }  # fmt: skip


def close(one: Any, other: Any, atol: float = 1e-5) -> None:
    assert np.shape(one) == np.shape(other)
    np.testing.assert_allclose(one, other, atol=atol)


def test_one_sentence_is_no_list_of_letters(tool: Tool) -> None:
    rows = tool.model.embed_text(["a red dog", "a bird"])
    assert rows.shape == (2, 256)
    close(tool.model.embed_text("a red dog"), rows[0])
    close(tool.model.embed_text(("a red dog", "a bird")), rows)
    close(tool.model.embed_text(np.array(["a red dog", "a bird"])), rows)
    close(tool.model.embed_text(word for word in ["a red dog", "a bird"]), rows)


def test_one_image_in_every_form(tool: Tool, files: dict[str, Path]) -> None:
    row = tool.model.embed_images([files["image"]])[0]
    picture = Image.open(files["image"])
    for form in (files["image"], str(files["image"]), PIXELS, picture, Image.fromarray(PIXELS)):
        close(tool.model.embed_images(form), row)
        close(tool.model.embed_images([form, form]), [row, row])
    close(tool.model.embed_images(np.stack([PIXELS, PIXELS])), [row, row])


def test_pillow_images_are_shown_as_their_files_are(tool: Tool, tmp_path: Path) -> None:
    turned, seen = tmp_path / "turned.png", Image.fromarray(PIXELS)
    exif = Image.Exif()
    exif[0x0112] = 6
    seen.save(turned, exif=exif)
    of_file = tool.model.embed_images(turned)  # turned when it is small, so rounded otherwise
    close(tool.model.embed_images(Image.open(turned)), of_file, atol=5e-3)
    assert np.abs(of_file - tool.model.embed_images(seen)).max() > 0.02
    hidden = np.dstack([PIXELS, np.zeros((48, 80), np.uint8)])
    white = np.full_like(PIXELS, 255)
    close(tool.model.embed_images(Image.fromarray(hidden)), tool.model.embed_images(white))
    grey = Image.fromarray(PIXELS[..., 0])
    close(tool.model.embed_images(grey), tool.model.embed_images(PIXELS[..., [0, 0, 0]]))


def test_one_sound_in_every_form(tool: Tool, files: dict[str, Path]) -> None:
    path = files["audio"]
    row = tool.model.embed_audio([path])[0]
    whole = np.round(SAMPLES * 32767).astype(np.int16)
    windows = tool.model.audio_windows(str(path))
    for form in (path, str(path), windows, (whole, RATE_HZ), Waveform(whole, RATE_HZ)):
        close(tool.model.embed_audio(form), row, atol=1e-3)
        close(tool.model.embed_audio([form, form]), [row, row], atol=1e-3)
    other = tool.model.embed_audio((whole[::2], RATE_HZ))
    assert np.abs(other - row).max() > 1e-2


def test_a_video_is_the_mix_of_its_frames_and_its_audio(tool: Tool, files: dict[str, Path]) -> None:
    from trimodal.media.video import decode_frames
    from trimodal.search.videos import _LIMITS

    model, path = tool.model, files["video"]
    frames = [frame.copy() for frame in decode_frames(path, 32, 32, _LIMITS)]
    assert len(frames) == 10
    mean = model.embed_images(frames).mean(axis=0)
    image, audio = mean / np.linalg.norm(mean), model.embed_audio(path)
    mix = 0.8 * image + 0.2 * audio
    close(model.embed_videos(path), mix / np.linalg.norm(mix))
    close(model.embed_videos([str(path)], audio_weight=1.0)[0], audio)
    close(model.embed_videos(path, audio_weight=0.0), image)
    silent = model.embed_videos(files["silent"])
    close(silent, model.embed_videos(files["silent"], audio_weight=0.0))
    with pytest.raises(QueryError, match=r"audio_weight is not in \[0, 1\]: 2"):
        model.embed_videos(path, audio_weight=2)
    with pytest.raises(MediaError, match=r"a\.wav"):
        model.embed_videos([path, files["audio"]])


def test_encode_tells_modalities_apart(tool: Tool, files: dict[str, Path]) -> None:
    model = tool.model
    inputs = ["a dog", files["audio"], PIXELS, files["video"], (SAMPLES, RATE_HZ), "a bird",
              Image.fromarray(PIXELS), files["image"], Waveform(SAMPLES, RATE_HZ)]  # fmt: skip
    rows = model.encode(inputs)
    sounds = model.embed_audio([files["audio"], (SAMPLES, RATE_HZ), Waveform(SAMPLES, RATE_HZ)])
    image, (dog, bird) = model.embed_images(PIXELS), model.embed_text(["a dog", "a bird"])
    video = model.embed_videos(files["video"])
    close(rows, [dog, sounds[0], image, video, sounds[1], bird, image, image, sounds[2]])
    for one, row in zip(inputs, rows, strict=True):
        close(model.encode(one), row)
    assert model.encode([]).shape == (0, 256)


def test_encode_is_told_what_a_file_is(tool: Tool, files: dict[str, Path]) -> None:
    model = tool.model
    for kind, embed in (("image", model.embed_images), ("audio", model.embed_audio),
                        ("video", model.embed_videos)):  # fmt: skip
        close(model.encode(str(files[kind]), modality=kind), embed(files[kind]))
    close(model.encode(files["video"], modality="audio"), model.embed_audio(files["video"]))
    with pytest.raises(QueryError, match=r"is a sentence and a file: give a Path"):
        model.encode(str(files["image"]))
    with pytest.raises(QueryError, match="modality 'sound': is one of text, image, audio, video"):
        model.encode("a dog", modality="sound")
    with pytest.raises(QueryError, match=r"a\.xyz: of what modality\?"):
        model.encode(Path("a.xyz"))
    assert modality_of("a dog.png") == "text"
    assert modality_of("x" * 5000 + ".png") == "text"


@pytest.mark.parametrize(
    ("method", "value", "told"),
    [
        ("embed_text", 5, "not a sentence: int '5'"),
        ("embed_text", [Path("a.txt")], "not a sentence: PosixPath 'a.txt'"),
        ("embed_text", b"a dog", "not a sentence: bytes"),
        ("embed_images", np.zeros((4, 4, 3)), r"shape \(4, 4, 3\), float64; an image is uint8"),
        ("embed_images", np.zeros((4, 4), np.uint8), r"not an image: an array of shape \(4, 4\)"),
        ("embed_images", [None], "not an image: NoneType"),
        ("embed_images", Image.new("F", (4, 4)), "an image of mode F: convert it to 8 bits"),
        ("embed_audio", np.zeros(99), r"not a sound \(samples need their rate\): an array of sh"),
        ("embed_audio", torch.zeros(99), "not a sound .*: an array of shape"),
        ("embed_audio", [None], "not a sound"),
        ("embed_videos", [PIXELS], "not a video file"),
        ("encode", np.zeros(99), "not an image: an array of shape"),
        ("encode", [3], "not a sound"),
    ],
)  # fmt: skip
def test_what_is_none_of_it_is_refused(method: str, value: Any, told: str, tool: Tool) -> None:
    with pytest.raises(QueryError, match=told):
        getattr(tool.model, method)(value)


def test_samples_at_a_wrong_rate_are_refused(tool: Tool) -> None:
    with pytest.raises(DataError, match="not audio"):
        tool.model.embed_audio((SAMPLES, 0))


def test_a_query_takes_one_or_many_of_every_form(tool: Tool, files: dict[str, Path]) -> None:
    model = tool.model
    many = model.query(["a dog"], [files["audio"]], [files["image"]])
    close(model.query("a dog", str(files["audio"]), files["image"]), many)
    whole = np.round(SAMPLES * 32767).astype(np.int16)
    close(model.query("a dog", (whole, RATE_HZ), PIXELS), many, atol=1e-3)
    close(model.query("a dog", [], []), model.embed_text("a dog"))
    with pytest.raises(QueryError, match="empty query"):
        model.query((), (), ())


def test_search_takes_what_a_query_takes(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Store:
        location = "here"

        def use(self, work: Any) -> Any:
            return work(self)

    def search_in(_store: Any, query: Any, **given: Any) -> Iterator[Any]:
        asked.append((query, given["audio_weight"]))
        return iter([])

    model = tool.model
    monkeypatch.setattr(model, "_store", Store())
    monkeypatch.setattr(model, "_check_model", lambda _: None)
    monkeypatch.setattr(model, "search_in", search_in)
    for given in ({"text": "a dog"}, {"image": PIXELS}, {"audio": (SAMPLES, RATE_HZ)},
                  {"text": ["a dog", "a bird"], "image": Image.fromarray(PIXELS)}):  # fmt: skip
        model.search(**given, store="here")
    assert [weight for _, weight in asked] == [0.2, 0.0, 1.0, pytest.approx(0.4 / 3)]
    close(asked[0][0], model.embed_text("a dog"))
    close(asked[1][0], model.embed_images(PIXELS))
    close(asked[2][0], model.embed_audio((SAMPLES, RATE_HZ)))
