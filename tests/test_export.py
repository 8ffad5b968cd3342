"""The ONNX encoders give the networks' embeddings, for any number of rows."""

import json
import os
import subprocess
import sys
import warnings
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_fixtures import Tool, make_subword_tool, make_tool
from PIL import Image
from training_fixtures import RATE_HZ, TinyData

from trimodal import Trimodal
from trimodal.core.files import read_json
from trimodal.core.text import Tokeniser
from trimodal.search import export
from trimodal.search.encoder import Encoder, UnknownWordWarning
from trimodal.search.export import (
    FILES,
    ExportedEncoder,
    ExportError,
    Part,
    example,
    export_encoders,
    parts_of,
    run,
)
from trimodal.search.onnx_example import Encoders


@pytest.fixture(scope="module")
def folder(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    model = Encoder.from_pretrained(tool.path, device="cpu")
    model.embed_images([np.zeros((32, 32, 3), np.uint8)])  # used before the export
    assert all(exported.difference <= 1e-4 for exported in export_encoders(model, folder))
    return folder


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("part", ["text", "image", "audio"])
def test_embeddings_agree_for_any_number_of_rows(
    tool: Tool, folder: Path, part: Part, rows: int
) -> None:
    inputs = example(part, tool.model, rows)
    with torch.inference_mode():
        expected = parts_of(tool.model)[part](*inputs).numpy()
    embeddings = run(folder / f"{part}.onnx", inputs)
    assert embeddings.shape == (rows, 256)
    assert abs(embeddings - expected).max() <= 1e-4


def test_the_files_and_their_settings(folder: Path) -> None:
    names = {file.name for file in folder.iterdir()}
    assert names == FILES - {"ngrams.npy"}
    settings = read_json(folder / "encoders.json")
    assert settings["frame_px"] == 32
    assert settings["window"]["seconds"] == 3.0
    words = settings["words"]
    assert (words["language"], words["pattern"], len(words["stop_words"])) == (
        "english", "[a-z]+", 179,
    )  # fmt: skip


@pytest.fixture(scope="module")
def spelling(
    tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Trimodal, Path]:
    """A model that spells words that it does not know, and its text encoder's folder."""
    folder = tmp_path_factory.mktemp("spelling")
    model = make_subword_tool(tiny_data, folder).model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "parts_of", lambda encoder: {"text": encoder.networks.text})
        export_encoders(model, folder / "out")
    return model, folder / "out"


def test_words_from_their_spelling_are_a_second_input(spelling: tuple[Trimodal, Path]) -> None:
    model, folder = spelling
    words = model.vocabulary.tokeniser.words
    ids, further = model.vocabulary.encode([words("a red dog"), words("reddish birds")])
    assert (ids >= read_json(folder / "encoders.json")["words"]["rows"]).sum() == 2
    inputs = [torch.from_numpy(ids), torch.from_numpy(further)]
    with pytest.warns(UnknownWordWarning):
        expected = model.embed_text(["a red dog", "reddish birds"])
    assert abs(run(folder / "text.onnx", inputs) - expected).max() <= 1e-4
    known = run(folder / "text.onnx", [inputs[0][:1], torch.zeros(1, 300)])
    assert abs(known - expected[:1]).max() <= 1e-4


# Runs the example where nothing but what it says it needs can be imported.
ALONE = """
import json, runpy, sys
from importlib.abc import MetaPathFinder
from pathlib import Path

OTHERS = {
    "torch", "trimodal", "pyarrow", "PIL", "librosa", "scipy", "regex", "nltk", "av", "pandas",
    "torchaudio", "soundfile", "yaml",
}

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in OTHERS:
            raise ImportError(f"example.py imports {name}")

sys.meta_path.insert(0, Refuse())
folder, asked = Path(sys.argv[1]), json.loads(sys.argv[2])
encoders = runpy.run_path(str(folder / "example.py"))["Encoders"](folder)
answers = [getattr(encoders, kind)(given if kind == "text" else Path(given)).tolist()
           for kind, given in asked]
sys.argv = ["example.py", *[given for kind, given in asked if kind != "text"]]
sys.argv.insert(1, asked[0][1])
print(json.dumps(answers))
runpy.run_path(str(folder / "example.py"), run_name="__main__")
"""


def run_alone(folder: Path, asked: list[tuple[str, str]]) -> tuple[list[Any], list[str]]:
    """What the example embeds, and what it prints for the first sentence and all files."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder), json.dumps(asked)],
        capture_output=True, text=True, timeout=100, check=False, cwd="/",
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers, *ranking = done.stdout.splitlines()
    return json.loads(answers), ranking


def test_the_example_needs_nothing_else_and_embeds_as_we_do(
    tool: Tool, folder: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (50, 90, 3), np.uint8)
    small = rng.integers(0, 256, (20, 33, 3), np.uint8)
    np.save(tmp_path / "a.npy", pixels, allow_pickle=False)
    Image.fromarray(small).save(tmp_path / "b.ppm")
    sounds = {}
    for name, seconds in (("short.wav", 1.3), ("long.wav", 5.62)):
        time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
        tone = np.sin(2 * np.pi * (300 + 200 * time) * time) * np.minimum(1, time)
        sounds[name] = np.stack([9000 * tone, 3000 * tone], axis=1).astype("<i2")
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(2)
            file.setframerate(RATE_HZ)
            file.writeframes(sounds[name].tobytes())
    sentences = ["The red dog, and a BIRD!", "zebra drum 5 of"]
    files = [str(tmp_path / name) for name in ("a.npy", "b.ppm", *sounds)]
    kinds = ["image", "image", "audio", "audio"]
    asked = [("text", sentence) for sentence in sentences]
    answers, ranking = run_alone(folder, asked + list(zip(kinds, files, strict=True)))
    with pytest.warns(UnknownWordWarning):
        expected = [*tool.model.embed_text(sentences), *tool.model.embed_images([pixels, small])]
    expected += list(tool.model.embed_audio([(sound, RATE_HZ) for sound in sounds.values()]))
    np.testing.assert_allclose(answers[:2], expected[:2], atol=1e-4)
    np.testing.assert_allclose(answers[2:4], expected[2:4], atol=1e-3)
    np.testing.assert_allclose(answers[4:], expected[4:], atol=3e-4)
    scores = {name: float(expected[0] @ row)
              for name, row in zip(files, expected[2:], strict=True)}  # fmt: skip
    assert [line.split()[2] for line in ranking] == sorted(files, key=lambda name: -scores[name])


def test_the_example_splits_and_spells_words_as_we_do(spelling: tuple[Trimodal, Path]) -> None:
    """Of other languages, too, and words from their spelling."""
    model, folder = spelling
    names = {path.name for path in folder.iterdir()}
    assert names == FILES - {"image.onnx", "audio.onnx"}
    encoders = Encoders(folder)
    for sentence in ("a red dog", "reddish birds", "drums of a zzz"):
        with warnings.catch_warnings(action="ignore"):
            expected = model.embed_text(sentence)
        np.testing.assert_allclose(encoders.text(sentence), expected, atol=1e-4)
    with pytest.raises(ValueError, match="'zzz' has no word that the model knows"):
        encoders.text("zzz")
    other = Tokeniser(language="hindi", stop_words=frozenset({"है", "É"}))
    encoders.settings["words"] |= {
        "language": other.language, "stop_words": sorted(other.stop_words)
    }  # fmt: skip
    for sentence in (
        "कुत्ता भौंकता है।",
        "E\u0301 Été, déjà-vu 3x",
        "क्\u200dष न\u200cमस्ते \u200d",
        "\u0301a",
    ):
        assert encoders._words(sentence) == other.words(sentence)


def test_the_examples_files_are_checked(folder: Path, tmp_path: Path) -> None:
    encoders = Encoders(folder)
    (tmp_path / "a.ppm").write_bytes(b"P6\n# by us\n4 4\n255\n" + bytes(47))
    with pytest.raises(ValueError, match=r"a\.ppm: not a binary PPM file of 8 bits"):
        encoders.image(tmp_path / "a.ppm")
    np.save(tmp_path / "a.npy", np.zeros((4, 4, 3)), allow_pickle=False)
    with pytest.raises(ValueError, match=r"a\.npy: not uint8"):
        encoders.image(tmp_path / "a.npy")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes(bytes(200))
    told = r"16 bits at 44100 Hz, not 16 bits at 8000 Hz: ffmpeg -i .*a\.wav -ar 8000 new\.wav"
    with pytest.raises(ValueError, match=told):
        encoders.audio(tmp_path / "a.wav")


def test_a_towers_own_tokeniser_is_said_not_to_be_exported(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_export", fake)
    monkeypatch.setattr(Encoder, "vocabulary", None)
    export_encoders(tool.model, tmp_path / "out")
    assert not (tmp_path / "out" / "words.json").exists()
    with pytest.raises(ValueError, match=r"^the tokeniser of .* is not exported: text\.onnx takes"):
        Encoders(tmp_path / "out").text("a dog")


def fake(part: Part, encoder: Encoder, folder: Path) -> ExportedEncoder:
    """An export that takes no time; the last one is killed if there is a file of that name."""
    (folder / f"{part}.onnx").write_text(encoder.fingerprint)
    if part == "audio" and (folder.parent / "kill").exists():
        raise KilledError
    return ExportedEncoder(file=f"{part}.onnx", difference=0.0)


class KilledError(Exception):
    """Simulates the end of the process."""


def test_an_export_is_of_one_model_or_none(
    tool: Tool, tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_export", fake)
    other = make_tool(tiny_data, tmp_path / "other", seed=8).model
    folder = tmp_path / "exported"
    folder.mkdir()

    def models() -> set[str]:
        assert {path.name for path in folder.iterdir()} == FILES - {"ngrams.npy"}
        return {path.read_text() for path in folder.glob("*.onnx")} | {
            read_json(folder / "encoders.json")["weights"]
        }

    export_encoders(tool.model, folder)
    assert models() == {tool.model.fingerprint}
    (tmp_path / "kill").touch()
    with pytest.raises(KilledError):
        export_encoders(other, folder)
    assert models() == {tool.model.fingerprint}
    (tmp_path / "kill").unlink()
    export_encoders(other, folder)
    assert models() == {other.fingerprint}
    assert {path.name for path in tmp_path.iterdir()} == {
        "exported", "other",
    }  # fmt: skip


def test_between_the_two_renames_there_is_no_export(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_export", fake)
    folder = tmp_path / "exported"
    export_encoders(tool.model, folder)
    rename, states = Path.rename, []

    def watched(path: Path, target: Path) -> Path:
        renamed = rename(path, target)
        states.append(len(list(folder.glob("*"))))
        return renamed

    monkeypatch.setattr(Path, "rename", watched)
    export_encoders(tool.model, folder)
    assert states == [0, 7]


def test_other_files_are_not_deleted(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ExportError, match=r"has other files in it, 'notes\.txt'; name a new"):
        export_encoders(tool.model, tmp_path)
    with pytest.raises(ExportError, match="cannot be replaced"):
        export_encoders(tool.model, tmp_path / "notes.txt")
    with pytest.raises(ExportError, match="cannot be replaced"):
        export_encoders(tool.model, Path())
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_modes_are_those_that_the_umask_gives(folder: Path) -> None:
    os.umask(umask := os.umask(0))
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~umask}
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask


def test_different_embeddings_are_an_error_and_leave_no_file(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "run", lambda path, inputs: run(path, inputs) + 2e-4)
    with pytest.raises(ExportError, match=r"text: .* differ by 2\.0e-04"):
        export_encoders(tool.model, tmp_path)
    assert not list(tmp_path.iterdir())
