"""The Encoder agrees with what the stages compute, and refuses inputs it cannot use."""

import shutil
import subprocess
import sys
import warnings
import wave
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import numpy.typing as npt
import pytest
import torch
from model_fixtures import Tool, make_subword_tool
from training_fixtures import RATE_HZ, TinyData

from trimodal.core.records import DataError, Query
from trimodal.core.text import read_vocabulary
from trimodal.data.clip_index import IndexedClip, read_index
from trimodal.data.readers import read_frame, read_windows
from trimodal.evaluation.text_video import embed_test_set
from trimodal.media.audio_windows import Waveform, audio_windows
from trimodal.media.container import LimitError, MediaError
from trimodal.models.image_input import ImageInput
from trimodal.models.preprocessing import centre_views
from trimodal.search.api import Trimodal
from trimodal.search.encoder import QueryError, UnknownWordWarning
from trimodal.training.distributed import SINGLE_PROCESS


@pytest.fixture(scope="module")
def clip(tiny_data: TinyData) -> IndexedClip:
    return read_index(tiny_data.av_dir, "test", tiny_data.mel)[0]


def write_audio(path: Path, seconds: float) -> Path:
    samples = 8000 * np.sin(np.arange(int(seconds * RATE_HZ)) * 0.3)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def test_sentences_have_the_embeddings_of_the_evaluation(
    tool: Tool, tiny_data: TinyData, clip: IndexedClip
) -> None:
    sentences = ["A red dog.", "the bird drum and a zebra"]
    queries = [
        Query(query_id=f"q{number}", video_id=clip.clip_id, sentence=sentence)
        for number, sentence in enumerate(sentences)
    ]
    expected = embed_test_set(
        tool.network, queries, [clip],
        frames_per_video=1, renormalise=False, front_end=tiny_data.front_end,
        augment=tiny_data.augment, world=SINGLE_PROCESS,
    )  # fmt: skip
    with pytest.warns(UnknownWordWarning, match="without a vector: zebra"):
        embeddings = tool.model.embed_text(sentences)
    assert (embeddings.shape, embeddings.dtype) == ((2, 256), np.float32)
    np.testing.assert_allclose(embeddings, expected.text, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


def test_no_inputs_have_no_embeddings(tool: Tool) -> None:
    for embed in (tool.model.embed_text, tool.model.embed_images, tool.model.embed_audio):
        embeddings = embed([])
        assert (embeddings.shape, embeddings.dtype) == ((0, 256), np.float32)


def test_known_words_give_no_warning(tool: Tool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tool.model.embed_text(["a red dog", "a blue drum"])


@pytest.mark.parametrize(
    ("sentence", "problem"),
    [
        ("zebra giraffe", "zebra, giraffe"),
        ("this is it", "only stop words"),
        ("", "only stop words"),
        ("Ω 5", "no word that the model knows"),
    ],
)
def test_a_sentence_without_known_words_is_refused(tool: Tool, sentence: str, problem: str) -> None:
    with pytest.raises(QueryError, match=problem):
        tool.model.embed_text(["a dog", sentence])


@pytest.fixture(scope="module")
def subword_tool(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> Tool:
    return make_subword_tool(tiny_data, tmp_path_factory.mktemp("subword"))


def test_words_without_a_vector_are_spelled_and_said_to_be(
    subword_tool: Tool, tiny_data: TinyData, clip: IndexedClip
) -> None:
    """The same embeddings as the evaluation's; a sentence of such words alone is no error."""
    sentences = ["a red dog", "reddish birds", "the drum of a zzz"]
    with pytest.warns(UnknownWordWarning) as caught:
        embeddings = subword_tool.model.embed_text(sentences)
    assert [str(warning.message) for warning in caught] == [
        "'reddish birds': no vector for reddish, birds: taken from the spelling",
        "'the drum of a zzz': words without a vector: zzz; no vector for drum: taken from the "
        "spelling",
    ]
    queries = [
        Query(query_id=f"q{number}", video_id=clip.clip_id, sentence=sentence)
        for number, sentence in enumerate(sentences)
    ]
    expected = embed_test_set(
        subword_tool.network, queries, [clip],
        frames_per_video=1, renormalise=False, front_end=tiny_data.front_end,
        augment=tiny_data.augment, world=SINGLE_PROCESS,
    )  # fmt: skip
    np.testing.assert_allclose(embeddings, expected.text, atol=1e-6)
    assert np.abs(embeddings[1] - embeddings[0]).max() > 1e-4
    with pytest.raises(QueryError, match="words without a vector: zzz"):
        subword_tool.model.embed_text(["zzz"])


def test_any_number_of_words_may_be_spelled(subword_tool: Tool) -> None:
    """In more sentences than are embedded at once, each as alone."""
    sentences = [f"re{'d' * number} birds" for number in range(2, 72)]
    with pytest.warns(UnknownWordWarning):
        together = subword_tool.model.embed_text(sentences)
    with pytest.warns(UnknownWordWarning):
        alone = subword_tool.model.embed_text(sentences[-1:])
    np.testing.assert_allclose(together[-1:], alone, atol=1e-6)


def test_another_language_is_another_vocabulary(subword_tool: Tool, tmp_path: Path) -> None:
    from trimodal.core.text import write_vocabulary

    known = read_vocabulary(subword_tool.vocabulary)
    german = replace(known.tokeniser, language="german")
    model = shutil.copytree(subword_tool.path, tmp_path / "model")
    write_vocabulary(model / "vocabulary.parquet", replace(known, tokeniser=german))
    with pytest.raises(DataError, match="trained with vocabulary"):
        Trimodal.from_pretrained(model)


def test_images_have_the_embeddings_of_the_evaluation(
    tool: Tool, tiny_data: TinyData, clip: IndexedClip
) -> None:
    frames = [read_frame(clip, number) for number in (1, 5, 9)]
    with torch.inference_mode():
        views = centre_views(frames, tiny_data.augment)
        expected = tool.network.image(ImageInput().prepare(views)).numpy()
    embeddings = tool.model.embed_images([frame.permute(1, 2, 0).numpy() for frame in frames])
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)


def test_an_image_file_and_its_pixels_have_one_embedding(tool: Tool, tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(1)
    pixels: npt.NDArray[np.uint8] = rng.integers(0, 256, (48, 80, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    by_file, by_pixels = tool.model.embed_images([tmp_path / "a.png", pixels])
    np.testing.assert_allclose(by_file, by_pixels, atol=1e-6)
    other = tool.model.embed_images([pixels[::-1]])[0]
    assert np.abs(other - by_file).max() > 1e-4


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0 cut"])
def test_what_is_not_an_image_is_named(tool: Tool, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(
        QueryError,
        match=r"broken\.jpg is not a readable picture: ",
    ):
        tool.model.embed_images([path])
    with pytest.raises(FileNotFoundError):
        tool.model.embed_images([tmp_path / "missing.jpg"])


def test_windows_are_those_of_the_shards(tiny_data: TinyData, clip: IndexedClip) -> None:
    """The windows of a clip's file are those that extraction stored."""
    path = tiny_data.av_dir.parent / "clips" / f"{clip.clip_id.removeprefix('video')}.mp4"
    windows = audio_windows(path, tiny_data.front_end)
    centres = [second + 0.5 for second in range(1, 9)]
    expected, missing = read_windows([clip] * 8, centres, tiny_data.front_end)
    assert sum(missing) == 0
    torch.testing.assert_close(windows, expected)


def test_long_audio_is_the_mean_of_its_windows(
    tool: Tool, tiny_data: TinyData, tmp_path: Path
) -> None:
    path = write_audio(tmp_path / "long.wav", 6.0)
    with torch.inference_mode():
        each = tool.network.audio(audio_windows(path, tiny_data.front_end)).numpy()
    assert len(each) == 4
    mean = each.mean(axis=0)
    embedding = tool.model.embed_audio([path])[0]
    np.testing.assert_allclose(embedding, mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize("seconds", [0.2, 2.9, 3.0])
def test_short_audio_lies_in_the_middle_of_its_window(
    tiny_data: TinyData, tmp_path: Path, seconds: float
) -> None:
    windows = audio_windows(write_audio(tmp_path / "short.wav", seconds), tiny_data.front_end)
    assert windows.shape == (1, 1, tiny_data.mel.mels, tiny_data.front_end.columns)
    loud = (windows[0, 0].max(dim=0).values > -0.9).nonzero().flatten()
    before, after = int(loud[0]), tiny_data.front_end.columns - 1 - int(loud[-1])
    assert abs(before - after) <= 2
    assert len(loud) == pytest.approx(seconds / tiny_data.mel.hop_seconds, abs=5)


def test_samples_embed_as_their_file_does(tool: Tool, tmp_path: Path) -> None:
    """At another rate, floating-point and whole numbers, in one channel and in two."""
    path = write_audio(tmp_path / "sound.wav", 5.0)
    with wave.open(str(path)) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(-1), "<i2").astype(np.float32) / 32768
    other = librosa.resample(samples, orig_sr=rate, target_sr=22_050)
    loud = np.round(samples * 32767).astype(np.int16)
    sounds = [
        Waveform(samples, rate), Waveform(other, 22_050), Waveform(loud, rate),
        Waveform(np.stack([0.5 * samples, 1.5 * samples], axis=1), rate),
    ]  # fmt: skip
    expected = tool.model.embed_audio([path])[0]
    for embedding in tool.model.embed_audio(sounds):
        assert embedding @ expected > 0.999
    assert tool.model.embed_audio([Waveform(samples[::-1].copy(), 2 * rate)])[0] @ expected < 0.999


@pytest.mark.parametrize(
    ("samples", "rate"),
    [(np.zeros(0), 16_000), (np.zeros((2, 2, 2)), 16_000), (np.zeros(9), 0), (np.zeros(9), np.inf),
     (np.array([0.0, np.nan]), 16_000)],
)  # fmt: skip
def test_samples_that_are_not_audio_are_refused(
    samples: np.ndarray, rate: float, tool: Tool
) -> None:
    with pytest.raises(DataError, match="not audio"):
        tool.model.embed_audio([Waveform(samples, rate)])


def test_files_without_audio_are_named(tool: Tool, tiny_data: TinyData, tmp_path: Path) -> None:
    silent = tiny_data.av_dir.parent / "clips" / "10.mp4"
    (tmp_path / "no.wav").write_bytes(b"not audio")
    for path in (silent, tmp_path / "no.wav"):
        with pytest.raises(MediaError, match=path.name):
            tool.model.embed_audio([path])
    with pytest.raises(LimitError, match="too_long"):
        tool.model.embed_audio([write_audio(tmp_path / "long.wav", 901.0)])


def test_another_vocabulary_is_refused(tool: Tool, tmp_path: Path) -> None:
    from trimodal.core.text import write_vocabulary

    known = read_vocabulary(tool.vocabulary)
    other = replace(known, vectors=known.vectors + (known.vectors != 0))
    model = shutil.copytree(tool.path, tmp_path / "model")
    write_vocabulary(model / "vocabulary.parquet", other)
    with pytest.raises(DataError, match="trained with vocabulary"):
        Trimodal.from_pretrained(model)
    (model / "vocabulary.parquet").unlink()
    with pytest.raises(DataError, match=r"vocabulary\.parquet: missing"):
        Trimodal.from_pretrained(model)
    with pytest.raises(DataError, match="no model here"):
        Trimodal.from_pretrained(tmp_path)


def test_a_sentence_needs_neither_torchvision_nor_media_libraries(tool: Tool) -> None:
    """These take longer to import than PyTorch, or nearly as long."""
    heavy = {"torchvision", "torchaudio", "av", "PIL", "nltk", "gensim", "sklearn", "scipy"}
    code = (
        "import sys; from trimodal.search.api import Trimodal; "
        f"m = Trimodal.from_pretrained({str(tool.path)!r}, device='cpu'); "
        "print(m.embed_text(['a dog']).shape, "
        f"sorted({heavy} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(1, 256) []\n"
