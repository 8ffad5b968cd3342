"""MTEB's tasks on the model: the numbers of its evaluation are those of ours."""

import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from configs import config_for_tests
from model_fixtures import Tool
from PIL import Image

from trimodal.core.errors import UserError
from trimodal.download.demo.audio import scene_audio
from trimodal.download.demo.captions import video_caption
from trimodal.download.demo.draw import draw_scene
from trimodal.download.demo.world import DemoConfig, sample_world
from trimodal.evaluation.retrieval import ranks, similarity
from trimodal.media.audio_windows import Waveform
from trimodal.search.encoder import QueryError, UnknownWordWarning

RATE_HZ = 16_000
slow = pytest.mark.nightly  # importing mteb takes seconds


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path))


def demo_items(count: int) -> tuple[list[str], list[Image.Image], list[npt.NDArray[np.float32]]]:
    """Sentences, pictures and sounds of the demo's test videos that have audio."""
    world = sample_world(config_for_tests(DemoConfig, clips=200, seed=3))
    scenes = [scene for scene in world.test if not scene.silent][:count]
    sentences = [video_caption(scene, np.random.default_rng(i)).text
                 for i, scene in enumerate(scenes)]  # fmt: skip
    pictures = [Image.fromarray(draw_scene(scene, 2.5, 48)) for scene in scenes]
    sounds = [scene_audio(scene, RATE_HZ, 4.0) for scene in scenes]
    return sentences, pictures, [sound for sound in sounds if sound is not None]


def demo_task(category: str, sentences: list[str], column: str, items: list[Any]) -> Any:
    """A retrieval task, its data in memory: sentence i asks for item i."""
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    class DemoRetrieval(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=f"TrimodalDemo{category.upper()}", description="The rendered world.",
            dataset={"path": "NA", "revision": "NA"}, type="Any2AnyRetrieval",
            category=category, modalities=["text", column], eval_splits=["test"],
            eval_langs=["eng-Latn"], main_score="ndcg_at_10", reference=None, date=None,
            domains=[], task_subtypes=[], license=None, annotations_creators="derived",
            dialect=[], sample_creation="created", bibtex_citation="",
        )  # fmt: skip

        def load_data(self, **_: Any) -> None:
            names = [str(number) for number in range(len(items))]
            self.dataset = {
                "default": {
                    "test": {
                        "queries": Dataset.from_dict({"id": names, "text": sentences}),
                        "corpus": Dataset.from_dict({"id": names, column: items}),
                        "relevant_docs": {name: {name: 1} for name in names},
                        "top_ranked": None,
                    }
                }
            }
            self.data_loaded = True

    return DemoRetrieval()


def test_without_mteb_the_adapter_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimodal.core.arguments.missing_packages", lambda *names: list(names))
    monkeypatch.delitem(sys.modules, "trimodal.evaluation.mteb", raising=False)
    with pytest.raises(UserError, match=r"pip install 'trimodal\[mteb\]'"):
        import_module("trimodal.evaluation.mteb")


@slow
@pytest.mark.parametrize("column", ["image", "audio"])
def test_an_offline_task_has_the_numbers_of_our_own_evaluation(tool: Tool, column: str) -> None:
    import mteb

    from trimodal.evaluation.mteb import TrimodalEncoder

    sentences, pictures, sounds = demo_items(24)
    sentences = [f"{sentence} red dog {('bird', 'drum', 'white')[i % 3]} {'green ' * (i % 5)}"
                 for i, sentence in enumerate(sentences)]  # fmt: skip
    if column == "image":
        items: list[Any] = pictures
        embedded = tool.model.embed_images([np.asarray(picture) for picture in pictures])
    else:
        items = [{"array": sound, "sampling_rate": RATE_HZ} for sound in sounds]
        embedded = tool.model.embed_audio([Waveform(sound, RATE_HZ) for sound in sounds])
    with pytest.warns(UnknownWordWarning):
        text = tool.model.embed_text(sentences)
    task = demo_task(f"t2{column[0]}", sentences, column, items)
    results = mteb.evaluate(
        TrimodalEncoder(tool.model), task, cache=None, co2_tracker=False, show_progress_bar=False
    )
    (scores,) = results.task_results[0].scores["test"]
    rank_of = ranks(similarity(text, embedded))
    assert len(np.unique(rank_of)) > 1
    for k in (1, 5, 10):
        assert scores[f"recall_at_{k}"] == pytest.approx((rank_of <= k).mean(), abs=1e-5)
    gains = np.where(rank_of <= 10, 1 / np.log2(1 + rank_of), 0)
    assert scores["ndcg_at_10"] == pytest.approx(gains.mean(), abs=1e-5)
    assert results.model_name == "trimodal/trimodal"
    assert results.model_revision == tool.model.fingerprint


class ByHand:
    """Embeds into three dimensions: the first of a text, an image or a sound decides."""

    embedding_dim, fingerprint = 3, "by hand"

    def embed_text(self, sentences: Any) -> npt.NDArray[np.float32]:
        if "klingon" in sentences:
            raise QueryError("no word")
        return np.array([[1, 0, 0]] * len(sentences), np.float32)

    def embed_images(self, images: Any) -> npt.NDArray[np.float32]:
        return np.array([np.eye(3)[i[0, 0, 0]] for i in images], np.float32).reshape(-1, 3)

    def embed_audio(self, sounds: Any) -> npt.NDArray[np.float32]:
        assert {sound.sample_rate_hz for sound in sounds} == {8000}
        return np.array([np.eye(3)[int(sound.samples[0])] for sound in sounds], np.float32)


@slow
def test_modalities_are_combined_as_stated() -> None:
    from mteb.models.models_protocols import EncoderProtocol

    from trimodal.core.records import DataError
    from trimodal.evaluation.mteb import TrimodalEncoder

    encoder = TrimodalEncoder(ByHand(), audio_weight=0.25, frames_per_video=2)
    assert isinstance(encoder, EncoderProtocol)
    image = Image.new("RGBA", (4, 4), (1, 0, 0, 255))
    sound = {"array": [2.0, 0.0], "sampling_rate": 8000}
    frames = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    frames[1] = 1

    class Decoder:
        """As torchcodec's: ten frames whose value says whether they are of the second half."""

        metadata = SimpleNamespace(num_frames=10)

        def get_frames_at(self, indices: Any) -> Any:
            values = torch.tensor([int(index >= 5) for index in indices], dtype=torch.uint8)
            return SimpleNamespace(data=values[:, None, None, None].expand(-1, 3, 4, 4))

    def encode(**batch: Any) -> list[list[float]]:
        rows: list[list[float]] = encoder.encode([batch]).tolist()
        return rows

    half = 2**-0.5
    assert encode(text=["a", "klingon"]) == [[1, 0, 0], [0, 0, 0]]
    assert encode(image=[image]) == [[0, 1, 0]]
    assert encode(audio=[sound]) == [[0, 0, 1]]
    assert encode(video=[frames, Decoder()]) == [[0.5, 0.5, 0]] * 2
    assert encode(video=[frames, frames, None], audio=[sound, None, sound]) == [
        [0.375, 0.375, 0.25], [0.5, 0.5, 0], [0, 0, 1],
    ]  # fmt: skip
    np.testing.assert_allclose(encode(text=["a"], image=[image]), [[half, half, 0]], atol=1e-6)
    twice, thrice = np.array([[2.0, 0, 0]]), np.array([[3.0, 0, 0]])
    assert float(encoder.similarity(twice, thrice)[0][0]) == 6  # videos are no unit vectors
    assert encoder.encode([]).shape == (0, 3)
    with pytest.raises(DataError, match="none of text, image, audio, video"):
        encode(label=[1])
