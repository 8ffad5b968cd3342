"""Where it sounds: the measures against loops as in the published code, maps of networks made by
hand whose places are known, and whole test sets of each form.
"""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from configs import config_for_tests
from data_fixtures import refused
from evaluation_fixtures import run
from model_fixtures import MODEL, Tool
from PIL import Image
from scipy.io import wavfile
from sklearn.metrics import auc
from torch import Tensor, nn
from tower_fixtures import CLIP_CONFIG
from training_fixtures import TinyData

from trimodal.core.files import read_table, write_table
from trimodal.core.records import DataError
from trimodal.core.schemas import AV_SCHEMA, SOUND_MAP_SCHEMA, TRUTH_SCHEMA
from trimodal.data.clip_index import IndexedClip, read_index
from trimodal.evaluation import evaluate as evaluate_module
from trimodal.evaluation import localisation_stage
from trimodal.evaluation.localisation import LocalisationResults, evaluate_localisation
from trimodal.evaluation.localisation_measures import (
    MAP_PX,
    as_many_as_true,
    best_half,
    consensus_iou,
    summarise_cious,
    true_map,
    upper_half,
)
from trimodal.evaluation.localisation_set import LocalisationSet
from trimodal.evaluation.results import MAPS
from trimodal.evaluation.retrieval import EmbeddingError
from trimodal.media.heat_map import heat_map_png, upsampled
from trimodal.models.checkpoint import Checkpoint, read_checkpoint
from trimodal.models.image_input import ImageInput
from trimodal.models.networks import TrimodalNet, VisionNet
from trimodal.models.open_clip_towers import rebuilt_open_clip
from trimodal.models.preprocessing import AugmentConfig, centre_crop_shares
from trimodal.models.sound_map import sound_map
from trimodal.models.towers import TowerError
from trimodal.report.sound_maps import sound_map_section
from trimodal.training.distributed import World
from trimodal.training.leaks import Leaks

BOXES = [(0.1, 0.2, 0.55, 0.6), (0.4, 0.5, 0.9, 0.95), (0.45, 0.5, 0.6, 0.55)]


def slow_true_map(boxes: list[Any], agreeing: int) -> list[list[float]]:
    truth = [[0.0] * MAP_PX for _ in range(MAP_PX)]
    for left, top, right, bottom in boxes:
        for y in range(int(224 * top), int(224 * bottom)):
            for x in range(int(224 * left), int(224 * right)):
                truth[y][x] += 1 / agreeing
    return [[min(1.0, value) for value in row] for row in truth]


def slow_ciou(region: npt.NDArray[np.bool_], truth: list[list[float]]) -> float:
    inside = union = 0.0
    for y in range(MAP_PX):
        for x in range(MAP_PX):
            union += truth[y][x]
            if region[y, x]:
                inside += truth[y][x]
                union += truth[y][x] == 0
    return inside / union


@pytest.mark.parametrize("agreeing", [1, 2])
def test_ciou_of_several_annotators_is_what_loops_give(agreeing: int) -> None:
    heat = np.random.default_rng(0).random((MAP_PX, MAP_PX)).astype(np.float32)
    truth, slow = true_map(BOXES, agreeing), slow_true_map(BOXES, agreeing)
    np.testing.assert_allclose(truth, slow, atol=1e-6)
    assert len(np.unique(truth)) == agreeing + 1
    for region in (upper_half(heat), as_many_as_true(heat, truth), best_half(truth)):
        assert consensus_iou(region, truth) == pytest.approx(slow_ciou(region, slow))


def test_regions_hold_the_highest_pixels_and_none_of_a_flat_map() -> None:
    heat = np.random.default_rng(1).permutation(MAP_PX**2).reshape(MAP_PX, MAP_PX)
    heat = heat.astype(np.float32)
    half = MAP_PX**2 // 2
    # The published code: above the element in the middle of the sorted ones.
    np.testing.assert_array_equal(upper_half(heat), heat > half)
    truth = true_map([(0, 0, 0.5, 0.25)], 1)
    np.testing.assert_array_equal(as_many_as_true(heat, truth), heat >= MAP_PX**2 - half // 4)
    flat = np.zeros_like(heat)
    assert not upper_half(flat).any()
    assert not as_many_as_true(flat, truth).any()
    assert as_many_as_true(flat, np.ones_like(flat)).all()


def test_no_map_beats_the_best_half() -> None:
    rng = np.random.default_rng(2)
    for boxes, agreeing in ((BOXES, 2), ([(0, 0, 1, 0.9)], 1), ([(0.2, 0.2, 0.3, 0.4)], 1)):
        truth = true_map(boxes, agreeing)
        best = consensus_iou(best_half(truth), truth)
        maps = [truth + 0.3 * rng.random(truth.shape) * scale for scale in (0.01, 1, 3, 100)]
        scores = [consensus_iou(upper_half(heat.astype(np.float32)), truth) for heat in maps]
        assert best >= max(scores)
        assert best == pytest.approx(scores[0])


def test_success_and_its_area_are_what_loops_and_sklearn_give() -> None:
    cious = np.concatenate([[0.0, 0.5, 1.0, 0.15], np.random.default_rng(3).random(40)])
    thresholds = [0.05 * i for i in range(21)]
    shares = [sum(ciou >= t for ciou in cious) / len(cious) for t in thresholds]
    summary = summarise_cious(cious, 0)
    assert summary == pytest.approx(
        {"cIoU@0.5": 100 * shares[10], "AUC": 100 * auc(thresholds, shares),
         "cIoU": 100 * float(np.mean(cious))}
    )  # fmt: skip


def test_intervals_are_those_of_resampled_items() -> None:
    cious = np.random.default_rng(4).random(50)
    summary = summarise_cious(cious, 2000)
    rng = np.random.default_rng(5)
    for name in ("cIoU@0.5", "AUC", "cIoU"):
        drawn = [summarise_cious(rng.choice(cious, 50), 0)[name] for _ in range(1000)]
        np.testing.assert_allclose(
            summary["intervals"][name], np.percentile(drawn, [2.5, 97.5]), atol=3
        )
    assert summary["intervals"] == summarise_cious(cious, 2000)["intervals"]


def test_a_map_is_enlarged_as_others_do_it_and_may_cover_a_part() -> None:
    values = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    whole = nn.functional.interpolate(values[None, None], (20, 30), mode="bilinear")[0, 0]
    np.testing.assert_allclose(upsampled(values, 20, 30), whole, atol=1e-6)
    shares = centre_crop_shares(40, config_for_tests(AugmentConfig, crop_px=20))
    assert shares == (0.25, 0.75)
    part = upsampled(values, 40, 60, shares)
    np.testing.assert_allclose(part[10:30, 15:45], whole, atol=1e-6)
    np.testing.assert_allclose(part[:10, :15], np.full((10, 15), values[0, 0]), atol=1e-6)
    np.testing.assert_allclose(part[30:, 45:], np.full((10, 15), values[1, 2]), atol=1e-6)


def test_the_picture_of_a_map_is_opaque_where_it_is_high() -> None:
    content = heat_map_png(torch.tensor([[0.0, 0.0], [0.0, 1.0]]), 32, 48)
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGBA", (48, 32))
        opacity = np.asarray(image)[..., 3]
        red, _, blue = (np.asarray(image)[-1, -1, c] for c in range(3))
    assert opacity[0, 0] == 0
    assert opacity[-1, -1] == opacity.max() == 191
    assert red > blue
    with Image.open(io.BytesIO(heat_map_png(torch.ones(2, 2), 8, 8))) as image:
        assert not np.asarray(image)[..., 3].any()


class Cells(nn.Module):
    """Features that are the mean colour of each of 4 x 4 cells, in [0, 1]."""

    features = 3

    def __init__(self) -> None:
        super().__init__()
        self.input = ImageInput(mean=(0, 0, 0), std=(1, 1, 1))

    def feature_map(self, pixels: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(pixels, 4)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.feature_map(pixels).mean(dim=(2, 3))


class Pitch(nn.Module):
    """Red for a sound that is low, green for one that is high."""

    def forward(self, windows: Tensor) -> Tensor:
        low, high = windows.mean(dim=(1, 3)).chunk(2, dim=1)
        is_high = (high.mean(dim=1) > low.mean(dim=1)).float()
        return torch.stack([1 - is_high, is_high, 0 * is_high], dim=1)


class ByHand(nn.Module):
    """What is red sounds low, what is green sounds high."""

    def __init__(self, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.image = VisionNet(backbone or Cells(), nn.Identity(), 0.0)
        self.audio = Pitch()
        self.weight = nn.Parameter(torch.zeros(1))


def picture(left: int, top: int, right: int, bottom: int, colour: str) -> Image.Image:
    """A grey picture of 64 x 64 with a rectangle."""
    image = Image.new("RGB", (64, 64), "#404040")
    image.paste(colour, (left, top, right, bottom))
    return image


def test_the_map_is_high_where_the_sounds_colour_is() -> None:
    pixels = np.array(picture(16, 32, 32, 48, "#ff0000"))
    pixels[0:16, 48:64] = (0, 255, 0)
    windows = torch.full((2, 1, 8, 5), -1.0)
    windows[0, :, 2], windows[1, :, 6] = 1.0, 1.0
    batch = torch.from_numpy(pixels).permute(2, 0, 1).expand(2, -1, -1, -1)
    low, high = sound_map(ByHand(), batch, windows)  # type: ignore[arg-type]
    expected = torch.full((4, 4), 3**-0.5)
    expected[0, 3], expected[2, 1] = 0.0, 1.0
    torch.testing.assert_close(low, expected)
    expected[0, 3], expected[2, 1] = 1.0, 0.0
    torch.testing.assert_close(high, expected)


def test_the_head_is_applied_at_each_place(tool: Tool) -> None:
    """A slow loop over the places of the real network."""
    network = tool.network
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (2, 3, 96, 64), generator=generator, dtype=torch.uint8)
    windows = torch.rand(2, 1, 16, 151, generator=generator)
    with torch.inference_mode():
        found = sound_map(network, pixels, windows)
        features = network.image.backbone.feature_map(network.image.prepare(pixels))
        sounds = network.audio(windows)
        assert found.shape == (2, 3, 2)
        for item, y, x in np.ndindex(2, 3, 2):
            place = network.image(features[item, :, y, x][None])[0]
            assert float(found[item, y, x]) == pytest.approx(float(place @ sounds[item]), abs=1e-5)


def test_networks_without_a_map_of_their_features_are_refused() -> None:
    class Sharpened(Cells):
        def forward(self, pixels: Tensor) -> Tensor:
            return super().forward(pixels) ** 2

    clip, _ = rebuilt_open_clip(
        {**CLIP_CONFIG, "preprocess_cfg": {**CLIP_CONFIG["preprocess_cfg"], "size": 32}}
    )
    pixels, windows = torch.full((1, 3, 32, 32), 100, dtype=torch.uint8), torch.zeros(1, 1, 8, 5)
    for backbone, why in ((clip, "no map of its features"), (Sharpened(), "more than average")):
        with pytest.raises(TowerError, match=rf"model\.image_backbone: .*{why}"):
            sound_map(ByHand(backbone), pixels, windows)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def checkpoint(tool: Tool) -> Checkpoint:
    """Pictures of 64 x 64 that are not cropped."""
    augment = config_for_tests(AugmentConfig, crop_px=64)
    return replace(read_checkpoint(tool.path), frame_px=64, augment=augment)


def write_tone(path: Path, hertz: float) -> None:
    path.parent.mkdir(exist_ok=True)
    wave = np.sin(2 * np.pi * hertz * np.arange(4 * 8000) / 8000)
    wavfile.write(path, 8000, (20000 * wave).astype(np.int16))


def write_files(folder: Path, name: str, picture: Image.Image, hertz: float) -> None:
    (folder / "frames").mkdir(parents=True, exist_ok=True)
    picture.save(folder / "frames" / f"{name}.png")
    write_tone(folder / "audio" / f"{name}.wav", hertz)


def evaluate(
    path: Path, annotations: Any, checkpoint: Checkpoint, *, min_coverage: float = 1.0
) -> LocalisationResults:
    test_set = LocalisationSet(kind="localisation", path=str(path), annotations=annotations)
    return evaluate_localisation(
        test_set, ByHand(), checkpoint, [], min_coverage=min_coverage, resamples=20  # type: ignore[arg-type]
    )  # fmt: skip


def vggss_folder(folder: Path) -> Path:
    """A low red picture, a high green one."""
    red, green = picture(0, 16, 32, 48, "#ff0000"), picture(32, 32, 64, 64, "#00ff00")
    write_files(folder, "00000000001_000000", red, 300)
    write_files(folder, "00000000002_000000", green, 3500)
    rows = [
        {"file": "00000000001_000000", "class": "low", "bbox": [[0, 0.25, 0.5, 0.75]]},
        {"file": "00000000002_000000", "class": "high", "bbox": [[0.5, 0.5, 1, 1]]},
    ]
    (folder / "vggss.json").write_text(json.dumps(rows))
    return folder


def test_a_network_that_knows_the_place_finds_it(tmp_path: Path, checkpoint: Checkpoint) -> None:
    results = evaluate(vggss_folder(tmp_path), "vggss", checkpoint)
    metrics = results.metrics
    assert metrics["sound"]["as_many"]["cIoU@0.5"] == 100
    assert metrics["sound"]["as_many"]["cIoU"] > 85
    assert metrics["best"]["half"]["cIoU"] == pytest.approx(50, abs=0.1)  # 1/4 of 1/2
    # The grey places have the same value, so that less than half of the pixels are above it.
    assert 50 < metrics["sound"]["half"]["cIoU"] < 60
    assert metrics["other_sound"]["as_many"]["cIoU"] < 15
    assert metrics["sound"]["half"]["intervals"].keys() == {"cIoU@0.5", "AUC", "cIoU"}
    assert results.audit == {
        "annotations": "vggss", "queries": 2, "gallery": 2, "left_out": {}, "left_out_names": {},
    }  # fmt: skip
    assert results.maps.schema == SOUND_MAP_SCHEMA
    assert sorted(results.maps["name"].to_pylist()) == ["00000000001_000000", "00000000002_000000"]
    row = results.maps.to_pylist()[0]
    for content, kind in ((row["frame"], "JPEG"), (row["heat_map"], "PNG")):
        with Image.open(io.BytesIO(content)) as image:
            assert image.format == kind
    assert row["ciou_as_many"] >= results.maps["ciou_as_many"][1].as_py()


def test_the_report_shows_the_maps_and_every_control(
    tmp_path: Path, checkpoint: Checkpoint
) -> None:
    results = evaluate(vggss_folder(tmp_path / "set"), "vggss", checkpoint)
    write_table(tmp_path / MAPS, results.maps)
    html = sound_map_section("<vggss>", results.metrics, 2, tmp_path / MAPS)
    assert "Where does it sound? &lt;vggss&gt;" in html
    assert (html.count("image/jpeg"), html.count("image/png")) == (2, 2)
    assert "left: 50.00%; top: 50.00%; width: 50.00%; height: 50.00%" in html
    for row in ("its own sound", "another item", "nearness to the centre", "the best there is"):
        assert row in html
    low, high = results.metrics["sound"]["as_many"]["intervals"]["AUC"]
    assert f"{results.metrics['sound']['as_many']['AUC']:.1f} ({low:.1f}..{high:.1f})" in html


def test_the_map_of_a_crop_lies_where_the_crop_was(tmp_path: Path, checkpoint: Checkpoint) -> None:
    """The network sees the middle 32 of 64 pixels, in cells of 8."""
    cropped = replace(checkpoint, augment=replace(checkpoint.augment, crop_px=32))
    rows = []
    for name, hertz, colour, left in (("low", 300, "#f00", 24), ("high", 3500, "#0f0", 32)):
        write_files(tmp_path, name, picture(left, 32, left + 8, 40, colour), hertz)
        box = [left / 64, 0.5, (left + 8) / 64, 40 / 64]
        rows.append({"file": name, "class": "x", "bbox": [box]})
    (tmp_path / "vggss.json").write_text(json.dumps(rows))
    metrics = evaluate(tmp_path, "vggss", cropped).metrics
    assert metrics["sound"]["as_many"]["cIoU"] > 70


def test_a_map_that_is_not_finite_is_refused(
    tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pitch, "forward", lambda _, windows: torch.full((len(windows), 3), np.nan))
    with pytest.raises(EmbeddingError, match="the map of 00000000001_000000 is not finite"):
        evaluate(vggss_folder(tmp_path), "vggss", checkpoint)


def test_flickr_soundnet_counts_what_two_of_its_annotators_agree_on(
    tmp_path: Path, checkpoint: Checkpoint
) -> None:
    def box(*edges: int) -> str:
        return f"<o><bbox><a>1</a>{''.join(f'<e>{edge}</e>' for edge in edges)}</bbox></o>"

    (tmp_path / "Annotations").mkdir()
    left, all_of_it = box(0, 0, 128, 256), box(0, 0, 256, 256)
    for name, boxes in (("11", left + left), ("22", left + all_of_it)):
        write_files(tmp_path, name, picture(0, 0, 64, 64, "#ff0000"), 300)
        (tmp_path / "Annotations" / f"{name}.xml").write_text(f"<annotation>{boxes}</annotation>")
    metrics = evaluate(tmp_path, "flickr_soundnet", checkpoint).metrics
    # The best half is the left one. In "22" one annotator of two has the right one: half a vote.
    assert metrics["best"]["half"]["cIoU"] == pytest.approx((100 + 100 * 2 / 3) / 2, abs=0.1)


def test_what_is_left_out_is_named(tmp_path: Path, checkpoint: Checkpoint) -> None:
    folder = vggss_folder(tmp_path)
    rows = json.loads((folder / "vggss.json").read_text())
    names = ("no_frame", "no_sound", "bad_frame", "bad_sound", "flat_box")
    for name in names:
        box = [0.5, 1, 0.9, 1] if name == "flat_box" else [0, 0, 1, 1]
        rows.append({"file": name, "class": "x", "bbox": [box]})
        write_files(folder, name, picture(0, 0, 9, 9, "red"), 300)
    (folder / "vggss.json").write_text(json.dumps(rows))
    (folder / "frames" / "no_frame.png").unlink()
    (folder / "audio" / "no_sound.wav").unlink()
    (folder / "frames" / "bad_frame.png").write_bytes(b"rubbish")
    (folder / "audio" / "bad_sound.wav").write_bytes(b"rubbish")
    results = evaluate(folder, "vggss", checkpoint, min_coverage=0.2)
    reasons = {
        "not in frames": ["no_frame"],
        "not in audio": ["no_sound"],
        "the picture cannot be read": ["bad_frame"],
        "the sound cannot be read": ["bad_sound"],
        "boxes without area": ["flat_box"],
    }
    assert results.audit["left_out_names"] == reasons
    assert results.audit["left_out"] == dict.fromkeys(reasons, 1)
    assert results.audit["queries"] == 2
    refused(
        lambda: evaluate(folder, "vggss", checkpoint),
        "evaluate.min_coverage", "28.6 % of the 7 annotated items", "not in frames", "no_frame",
    )  # fmt: skip


def truth_of(**boxes: Any) -> pa.Table:
    rows = [
        {"video_id": name, "video_seen": [], "video_heard": [], "caption_seen": [],
         "caption_heard": [], "has_audio": True, "sounding_boxes": of_frames}
        for name, of_frames in boxes.items()
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=TRUTH_SCHEMA)


def test_the_demo_is_compared_on_the_middle_frame(
    tmp_path: Path, tool: Tool, tiny_data: TinyData
) -> None:
    """Frame 6 of ten; video9 has audio, video10 has none. The clips' frames are 32 x 32."""
    checkpoint = read_checkpoint(tool.path)
    clips: list[IndexedClip] = list(read_index(tiny_data.av_dir, "test", checkpoint.mel))
    nine = next(clip for clip in clips if clip.clip_id == "video9")
    clips.append(replace(nine, clip_id="again"))
    at_six = [[[0.0, 0.0, 0.5, 0.5]] if n == 6 else [[0.9, 0.9, 1.0, 1.0]] for n in range(1, 11)]
    silent, unheard = [[[0.0, 0.0, 1.0, 1.0]]] * 10, [[]] * 10
    path = tmp_path / "truth.parquet"
    test_set = LocalisationSet(kind="localisation", path=str(path), annotations="demo")

    def evaluated(coverage: float = 0.5) -> LocalisationResults:
        return evaluate_localisation(
            test_set, tool.network, checkpoint, clips, min_coverage=coverage, resamples=0
        )

    write_table(path, truth_of(video9=at_six, again=at_six, video10=silent, unheard=unheard))
    results = evaluated()
    assert results.audit["left_out_names"] == {
        "without a box": ["unheard"], "without audio": ["video10"],
    }  # fmt: skip
    quarter = true_map([(0, 0, 0.5, 0.5)], 1)
    best = 100 * consensus_iou(best_half(quarter), quarter)
    assert results.metrics["best"]["half"]["cIoU"] == pytest.approx(best)
    assert results.maps["boxes"].to_pylist() == [[[0.0, 0.0, 0.5, 0.5]]] * 2
    with Image.open(io.BytesIO(results.maps["frame"][0].as_py())) as frame:
        red = np.asarray(frame)[..., 0].mean()
    assert red == pytest.approx(20 + 20 * 5, abs=6)  # second 5.5
    write_table(path, truth_of(video9=at_six, gone=at_six))
    refused(evaluated, "at least 2 usable items are needed, not 1")
    write_table(path, truth_of(video9=at_six, gone=at_six, again=at_six))
    refused(lambda: evaluated(0.9), "not among the extracted test clips", "gone")
    write_table(path, truth_of(video9=at_six[:3], again=at_six))
    refused(evaluated, str(path), "video9 has 3 frames")
    write_table(path, truth_of(video9=[[[0.5, 0.0, 0.1, 1.0]]] * 10))
    refused(evaluated, "no box within the frame")


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
def test_the_projects_own_image_networks_have_a_map(backbone: Any) -> None:
    config = replace(MODEL, image_backbone=backbone, text_network="mean")
    network = TrimodalNet(config, torch.zeros(2, 300)).eval()
    pixels = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    with torch.inference_mode():
        assert sound_map(network, pixels, torch.zeros(1, 1, 16, 151)).shape == (1, 3, 3)


def test_the_stage_writes_what_the_report_reads(
    tmp_path: Path, tool: Tool, tiny_data: TinyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = vggss_folder(tmp_path / "set"), tmp_path / "out"
    test_set = LocalisationSet(kind="localisation", path=str(path), annotations="vggss")
    metrics, audit = run(tiny_data, tool, test_set, out, bootstrap_resamples=20)
    expected = evaluate_localisation(
        test_set, tool.network, read_checkpoint(tool.path), [], min_coverage=1.0, resamples=20
    )
    assert metrics == expected.metrics
    assert expected.audit.items() <= audit.items()
    assert (audit["kind"], audit["items_in_training_same_clip"]) == ("localisation", 0)
    assert read_table(out / MAPS, SOUND_MAP_SCHEMA).equals(expected.maps)
    monkeypatch.setattr(
        evaluate_module, "World", lambda **given: World(rank=1, size=2, device=given["device"])
    )
    with pytest.raises(FileNotFoundError, match="metrics"):
        run(tiny_data, tool, test_set, tmp_path / "other")
    assert not list(tmp_path.glob("other/*"))


def test_test_clips_of_the_training_data_are_no_test(
    tmp_path: Path, tool: Tool, tiny_data: TinyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "truth.parquet", tmp_path / "out"
    write_table(path, truth_of(video9=[[[0.0, 0.0, 0.5, 0.5]]] * 10))
    test_set = LocalisationSet(kind="localisation", path=str(path), annotations="demo")
    leaks = Leaks(
        test_videos=frozenset({"video9", "unlisted"}),
        by_reason={"same_clip": {"video9": "clip-1", "unlisted": "clip-2"}},
        unknown_origin=frozenset(),
    )
    monkeypatch.setattr(localisation_stage, "find_leaks", lambda *_: leaks)
    with pytest.raises(DataError, match="1 of 1 test clips are in training"):
        run(tiny_data, tool, test_set, out)
    with pytest.raises(DataError, match=r"0\.0 % of the 0 annotated items"):
        run(tiny_data, tool, test_set, out, "leave_out")
    with pytest.raises(DataError, match="at least 2 usable items are needed, not 1"):
        run(tiny_data, tool, test_set, out, "keep")


def test_files_of_the_training_data_are_no_test(
    tmp_path: Path, tool: Tool, tiny_data: TinyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are in no index of test clips: their names tell."""
    index = read_table(tiny_data.av_dir / "index.parquet", AV_SCHEMA).to_pylist()
    clip = next(row["clip_id"] for row in index if row["split"] == "train")
    folder = vggss_folder(tmp_path / "set")
    write_files(folder, clip, picture(0, 16, 32, 48, "#ff0000"), 300)
    rows = json.loads((folder / "vggss.json").read_text())
    rows.append({"file": clip, "class": "low", "bbox": [[0, 0.25, 0.5, 0.75]]})
    (folder / "vggss.json").write_text(json.dumps(rows))
    test_set = LocalisationSet(kind="localisation", path=str(folder), annotations="vggss")
    with pytest.raises(DataError, match="1 of 3 test clips are in training"):
        run(tiny_data, tool, test_set, tmp_path / "out")
    _, audit = run(tiny_data, tool, test_set, tmp_path / "out", "leave_out")
    assert (audit["queries"], audit["left_out"]) == (2, {"seen in training": 1})
    _, audit = run(tiny_data, tool, test_set, tmp_path / "out", "keep")
    assert (audit["queries"], audit["items_in_training_same_clip"]) == (3, 1)
    of_youtube = pa.table(
        {
            "split": ["train", "val", "test"],
            "clip_id": ["aaaaaaaaaaa_000001", "own", "bbbbbbbbbbb_000001"],
            "youtube_id": ["aaaaaaaaaaa", "", "bbbbbbbbbbb"],
        }
    )
    monkeypatch.setattr(localisation_stage, "read_table", lambda *_, **__: of_youtube)
    names = ["aaaaaaaaaaa_000090", "bbbbbbbbbbb_000001", "own"]
    found = localisation_stage.find_file_leaks(tmp_path, names, of_youtube=True)
    assert found.videos == {"aaaaaaaaaaa_000090", "own"}
    assert localisation_stage.find_file_leaks(tmp_path, names, of_youtube=False).videos == {"own"}
