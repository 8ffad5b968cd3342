"""Stage ``features``: what a frozen tower makes of pictures and captions, stored and read again."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from configs import MACHINE, PARAMS
from data_fixtures import contents, refused
from features_fixtures import FEATURES, FROZEN, make, open_store, towers_of
from s3_server import new_bucket, s3_server
from stream_fixtures import SAMPLING, clips_of
from tower_fixtures import write_sentence_transformer
from training_fixtures import TinyData

from trimodal.core.storage import storage_path
from trimodal.core.text import read_vocabulary
from trimodal.data.clip_index import read_index
from trimodal.data.readers import read_frame
from trimodal.features import compute, stage
from trimodal.features.config import make_nothing
from trimodal.features.stage import make_features
from trimodal.models.preprocessing import centre_views
from trimodal.training.image_audio import ImageAudioPairs, ImageAudioValidation
from trimodal.training.image_text import ImageTextPairs, ImageTextValidation
from trimodal.training.random_streams import SampleIndex


@pytest.fixture(scope="module")
def features(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tiny_data, tmp_path_factory.mktemp("features") / "features")


def test_shapes_and_names_follow_the_shards(tiny_data: TinyData, features: Path) -> None:
    """A file for each shard of training and validation, none for those of the test split."""
    shapes = {
        path.relative_to(features).as_posix(): np.load(path).shape
        for path in features.rglob("*.npy")
    }
    av = pq.read_table(tiny_data.av_dir / "index.parquet").to_pylist()
    images = pq.read_table(tiny_data.images_dir / "index.parquet").to_pylist()
    expected: dict[str, list[int]] = {}
    for row in av:
        if row["split"] != "test":
            name = f"av/{Path(row['shard']).stem}.npy"
            expected.setdefault(name, [0, 3, 16])[0] += len(row["frame_offsets"])
    for row in images:
        expected.setdefault(f"images/{Path(row['shard']).stem}.npy", [0, 3, 16])[0] += 1
    captions = len(np.load(tiny_data.captions_dir / "token_ids.npy"))
    expected["text/000000.npy"] = [captions, 512]
    assert shapes == {name: tuple(shape) for name, shape in expected.items()}
    assert len(shapes) > 6


def test_a_clips_frames_are_found_in_its_shards_file(tiny_data: TinyData, features: Path) -> None:
    """The validation frame of every clip, against the tower on the frame's own pixels."""
    towers = towers_of(tiny_data)
    network = towers.build()
    clips = read_index(tiny_data.av_dir, "train", tiny_data.mel)
    stored = ImageAudioValidation(
        clips, SAMPLING, tiny_data.front_end, tiny_data.augment,
        features=open_store(features, towers),
    )  # fmt: skip
    batch, windows = stored.__getitems__(range(len(clips)))
    views = centre_views([read_frame(clip, 4) for clip in clips], tiny_data.augment)
    with torch.inference_mode():
        expected = network.image.backbone(network.image.prepare(views))
    torch.testing.assert_close(batch.float(), expected, rtol=2e-3, atol=2e-3)
    assert len({row.numpy().tobytes() for row in batch}) == len(clips)
    pixels, same_windows = stored.thawed().__getitems__(range(len(clips)))
    assert torch.equal(pixels, views)
    assert torch.equal(windows, same_windows)


def test_images_and_captions_are_those_of_the_pixels_and_words(
    tiny_data: TinyData, features: Path
) -> None:
    towers = towers_of(tiny_data)
    network = towers.build()
    stored = ImageTextPairs(
        tiny_data.captions_dir, tiny_data.images_dir, "train", tiny_data.augment, 5,
        features=open_store(features, towers),
    )  # fmt: skip
    indices = [SampleIndex(3, sample) for sample in range(len(stored))]
    _, captions = stored.__getitems__(indices)
    _, ids = stored.thawed().__getitems__(indices)
    with torch.inference_mode():
        expected = network.text.backbone(ids)
    torch.testing.assert_close(captions.float(), expected, rtol=2e-3, atol=2e-3)
    validation = ImageTextValidation(
        tiny_data.captions_dir, tiny_data.images_dir, "val", tiny_data.augment,
        features=open_store(features, towers),
    )  # fmt: skip
    rows = [2, 0, 1]
    images, _ = validation.__getitems__(rows)
    pixels, _ = validation.thawed().__getitems__(rows)
    with torch.inference_mode():
        expected = network.image.backbone(network.image.prepare(pixels))
    torch.testing.assert_close(images.float(), expected, rtol=2e-3, atol=2e-3)


def test_training_draws_every_view_and_validation_the_centre(
    tiny_data: TinyData, features: Path
) -> None:
    pairs = ImageAudioPairs(
        clips_of(tiny_data), replace(SAMPLING, first_frame=4, last_frame=4), tiny_data.front_end,
        tiny_data.augment, 5, features=open_store(features, towers_of(tiny_data)),
    )  # fmt: skip
    seen = {pairs[SampleIndex(number, 0)][0].numpy().tobytes() for number in range(20)}
    first = next(iter(sorted((features / "av").glob("train-*.npy"))))
    views = np.load(first)
    assert seen == {view.tobytes() for view in views[3]}
    assert len(seen) == 3


def test_views_are_augmented_by_the_seed(features: Path) -> None:
    files = sorted((features / "images").glob("*.npy"))
    for path in files:
        views = np.load(path).astype(np.float32)
        assert (np.abs(views[:, 1:] - views[:, :1]).max(axis=2) > 0).all()
    jobs = [
        compute.PictureFile(
            path=path, shard=path, shard_fingerprint="", extents=np.zeros((2, 2), np.int64)
        )
        for path in files[:2]
    ]
    records = [
        compute._random(5, 3, job)[view][row] for job in jobs for view in (0, 1) for row in (0, 1)
    ]
    assert len({record.tobytes() for record in records}) == 8


def test_two_workers_make_the_same_bytes_as_one(
    tiny_data: TinyData, features: Path, tmp_path: Path
) -> None:
    make(tiny_data, tmp_path / "two", machine=replace(MACHINE, workers=2))
    assert contents(tmp_path / "two") == contents(features)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.mark.parametrize("after", [0, 2, 5])
def test_a_killed_stage_resumes_with_the_files_that_are_done(
    after: int, tiny_data: TinyData, features: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    made: list[str] = []

    def counted(work: Any, job: Any) -> Any:
        if len(made) == after:
            raise Killed
        made.append(job.path.name)
        return compute_pictures(work, job)

    compute_pictures = compute.picture_features
    with monkeypatch.context() as patch:
        patch.setattr(stage, "picture_features", counted)
        with pytest.raises(Killed):
            make(tiny_data, tmp_path / "out")
        assert not (tmp_path / "out" / "index.json").exists()
        assert len(made) == after
        after = 100
        make(tiny_data, tmp_path / "out")
    total = len([*features.glob("av/*.npy"), *features.glob("images/*.npy")])
    assert len(made) == total > 5
    assert contents(tmp_path / "out") == contents(features)
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("change", "same"),
    [({"seed": 12}, set()), ({"views": 2}, {"text"})],
)
def test_only_what_a_change_concerns_is_made_again(
    change: dict[str, int], same: set[str], tiny_data: TinyData, tmp_path: Path
) -> None:
    """Another seed is another random tower, too; the number of views does not concern captions."""
    make(tiny_data, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    make(tiny_data, tmp_path / "out", towers_of(tiny_data, **change))
    kept = {path.parent.name for path, time in before.items() if path.stat().st_mtime_ns == time}
    assert kept == same


def test_a_tower_that_is_thawed_leaves_its_folders(tiny_data: TinyData, tmp_path: Path) -> None:
    make(tiny_data, tmp_path / "out")
    make(tiny_data, tmp_path / "out", towers_of(tiny_data, replace(FROZEN, freeze=("text",))))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"text", "index.json"}


def test_features_of_the_mean_of_words(tiny_data: TinyData, tmp_path: Path) -> None:
    towers = towers_of(tiny_data, replace(FROZEN, freeze=("text",), text_network="mean"))
    make(tiny_data, tmp_path, towers)
    vectors = read_vocabulary(tiny_data.captions_dir / "vocabulary.parquet").vectors
    ids = np.load(tiny_data.captions_dir / "token_ids.npy")
    means = np.stack([vectors[row[row != 0]].mean(axis=0) for row in ids])
    np.testing.assert_allclose(
        np.load(tmp_path / "text" / "000000.npy"), means, rtol=2e-3, atol=1e-3
    )


def test_captions_are_in_blocks(
    tiny_data: TinyData, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("stage", "store"):
        monkeypatch.setattr(f"trimodal.features.{module}.BLOCK", 4)
    towers = towers_of(tiny_data, replace(FROZEN, freeze=("text",)))
    make(tiny_data, tmp_path / "out", towers)
    table = tiny_data.captions_dir / "captions.parquet"
    whole = np.load(features / "text" / "000000.npy")
    rows = np.array([9, 0, 4, 3, len(whole) - 1])
    read = open_store(tmp_path / "out", towers).captions(table).rows(rows)
    assert len(list((tmp_path / "out" / "text").glob("*.npy"))) == -(-len(whole) // 4)
    np.testing.assert_allclose(read.numpy(), whole[rows], rtol=2e-3, atol=2e-3)


def test_nothing_frozen_makes_an_empty_folder_without_pytorch(tmp_path: Path) -> None:
    folder = tmp_path / "features"
    (folder / "av").mkdir(parents=True)
    make_nothing(folder)
    assert list(folder.iterdir()) == []
    code = (
        "import sys\nfrom pipeline.features import main; main(); assert 'torch' not in sys.modules"
    )
    arguments = ["--params", PARAMS, "--av", "none", "--captions", "none", "--images", "none"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments), "--out", str(folder)],
        cwd=PARAMS.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_tower_of_the_same_weights_may_be_another(tiny_data: TinyData, tmp_path: Path) -> None:
    """Pooling has no weights."""
    model = write_sentence_transformer(tmp_path)
    (pooling,) = model.glob("*_Pooling/config.json")
    towers = towers_of(tiny_data, replace(
        FROZEN, freeze=("text",), text_network=f"sentence_transformers:{model}",
        text_weights="pretrained",
    ))  # fmt: skip
    identities = []
    for mode in ("mean", "cls"):
        pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"pooling_mode": mode}))
        identities.append(towers.identities(towers.build())["text"])
    assert identities[0].pop("definition") != identities[1].pop("definition")
    assert identities[0] == identities[1]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"views": 4}, ("index.json: image.views is 3", "4")),
        ({"seed": 12}, ("index.json: image.weights is",)),
        ({"model": replace(FROZEN, width=3)}, ("index.json: image.weights is",)),
        ({"model": replace(FROZEN, image_backbone="efficientnet_lite0")},
         ("index.json: image.tower is 'resnet18'", "efficientnet_lite0")),
        ({"model": replace(FROZEN, text_network="mean")}, ("index.json: text.tower is 'cnn'",)),
        ({"model": replace(FROZEN, text_pooling="words")}, ("index.json: text.pooling is 'all'",)),
        ({"crop_px": 20}, ("index.json: image.crop_px is 24", "20")),
    ],
)  # fmt: skip
def test_features_of_something_else_are_refused_in_a_line(
    change: dict[str, Any], named: tuple[str, ...], tiny_data: TinyData, features: Path
) -> None:
    towers = towers_of(tiny_data, change.get("model", FROZEN))
    if "crop_px" in change:
        towers = replace(towers, augment=replace(tiny_data.augment, **change))
    elif "model" not in change:
        towers = replace(towers, config=replace(FEATURES, **change))
    refused(lambda: open_store(features, towers), *named, "run the features stage again")


def spoil_fingerprint(index: dict[str, Any]) -> None:
    index["image"]["files"]["av/train-000000.npy"]["shape"][0] += 1


def copied(features: Path, folder: Path) -> Path:
    for name, content in contents(features).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_damaged_features_are_refused(tiny_data: TinyData, features: Path, tmp_path: Path) -> None:
    towers = towers_of(tiny_data)
    refused(lambda: open_store(tmp_path / "none", towers), "index.json: missing", "model.freeze")
    index = tmp_path / "a" / "index.json"
    copied(features, index.parent)
    content = json.loads(index.read_text())
    spoil_fingerprint(content)
    index.write_text(json.dumps(content))
    refused(lambda: open_store(index.parent, towers), "index.json: damaged")
    content["format"] = 0
    index.write_text(json.dumps(content))
    refused(lambda: open_store(index.parent, towers), "index.json: not an index of features")
    array = copied(features, tmp_path / "b") / "av" / "train-000000.npy"
    array.write_bytes(array.read_bytes()[:-1] + b"\x7f")
    refused(lambda: open_store(tmp_path / "b", towers).check_files(), "av/train-000000.npy")
    array.unlink()
    refused(lambda: open_store(tmp_path / "b", towers).check_files(), "it is missing")


def test_features_of_other_shards_or_captions_are_refused(
    tiny_data: TinyData, features: Path, tmp_path: Path
) -> None:
    store = open_store(features, towers_of(tiny_data))
    clips = clips_of(tiny_data)
    counts = [len(extents) for extents in clips.frame_extents().values()]
    others = dict.fromkeys(clips.shards, "another")
    refused(
        lambda: store.pictures("av", clips.shards, others, counts), "train-000000.npy", "another"
    )
    fewer = [count - 1 for count in counts]
    refused(
        lambda: store.pictures("av", clips.shards, clips.fingerprints, fewer), "train-000000.npy"
    )
    table = tmp_path / "captions.parquet"
    table.write_bytes(b"others")
    refused(lambda: store.captions(table), "text.captions", "captions.parquet")


def test_features_that_float16_cannot_hold_are_refused(tiny_data: TinyData, tmp_path: Path) -> None:
    towers = towers_of(tiny_data)
    network = towers.build()
    with torch.no_grad():
        network.image.backbone.layer4[1].bn2.weight.fill_(1e30)
    key = "huge"
    compute.keep_network(key, network)
    work = compute.Work(towers=towers, key=key, device=torch.device("cpu"))
    clips = clips_of(tiny_data)
    shard, extents = next(iter(clips.frame_extents().items()))
    job = compute.PictureFile(
        path=tmp_path / "a.npy", shard=shard, shard_fingerprint="", extents=extents
    )
    refused(lambda: compute.picture_features(work, job), "a.npy", "model.image_backbone", "float16")
    assert not list(tmp_path.iterdir())


@pytest.mark.nightly
def test_shards_may_be_at_urls(tiny_data: TinyData, features: Path, tmp_path: Path) -> None:
    """In two workers, through the cache."""
    with s3_server():
        bucket = new_bucket("features")
        for folder in (tiny_data.av_dir, tiny_data.images_dir):
            for path in filter(Path.is_file, folder.iterdir()):
                (storage_path(f"{bucket}/{folder.name}") / path.name).write_bytes(path.read_bytes())
        cache = replace(MACHINE.shard_cache, folder=str(tmp_path / "cache"))
        make_features(
            storage_path(f"{bucket}/av"), storage_path(f"{bucket}/images"), tmp_path / "out",
            towers_of(tiny_data), replace(MACHINE, workers=2, shard_cache=cache),
        )  # fmt: skip
    assert contents(tmp_path / "out") == contents(features)
