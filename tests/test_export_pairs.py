"""Exported pairs as Hugging Face datasets and mlcroissant read them, held against the shards."""

import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from configs import MACHINE, PARAMS
from PIL import Image
from stream_fixtures import clips_of, member, pixels
from training_fixtures import TinyData

from trimodal.cli import main
from trimodal.core.errors import UserError
from trimodal.core.shards import read_extents
from trimodal.core.timing import FramePosition
from trimodal.data import export_pairs as module
from trimodal.data.dataset_card import Configuration, ParquetFile, dataset_card
from trimodal.data.export_pairs import ShardFolders, export_pairs
from trimodal.data.pair_tables import ImageAudioTable, ImageTextTable
from trimodal.data.readers import read_windows

SPLITS = {"train": "train", "validation": "val", "test": "test"}
FITTING = range(2, 10)  # frames of the tiny data's clips, of 10 s


def folders(data: TinyData) -> ShardFolders:
    return ShardFolders(av=data.av_dir, captions=data.captions_dir, images=data.images_dir)


def export(folder: Path, data: TinyData, frames_per_clip: int | None = None) -> list[Configuration]:
    return export_pairs(
        folder, folders(data), data.front_end, MACHINE.shard_cache, frames_per_clip=frames_per_clip
    )


@pytest.fixture(scope="module")
def exported(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pairs, in files of 200 kB and groups of 50 kB."""
    folder = tmp_path_factory.mktemp("export") / "pairs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FILE_BYTES", 200_000)
        patch.setattr(module, "ROW_GROUP_BYTES", 50_000)
        export(folder, tiny_data)
    return folder


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """Hugging Face datasets, without network and with a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hugging_face")))
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
            patch.setenv(name, "1")
        import datasets

        datasets.disable_progress_bars()
        yield datasets


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_datasets_reads_the_windows_and_frames_that_training_reads(
    exported: Path, datasets: ModuleType, tiny_data: TinyData
) -> None:
    loaded = datasets.load_dataset(str(exported))  # the default configuration
    assert {name: len(rows) for name, rows in loaded.items()} == {
        "train": 7 * 8, "validation": 2 * 8, "test": 8,
    }  # fmt: skip
    for name, split in SPLITS.items():
        clips = [clip for clip in clips_of(tiny_data, split) if clip.has_audio]
        rows = list(loaded[name].with_format("numpy", columns=["window"], output_all_columns=True))
        assert [(row["clip_id"], row["frame"]) for row in rows] == [
            (clip.clip_id, frame) for clip in clips for frame in FITTING
        ]
        expected, _ = read_windows(
            [clip for clip in clips for _ in FITTING],
            [frame - 0.5 for _ in clips for frame in FITTING],
            tiny_data.front_end,
        )
        windows = np.stack([row["window"] for row in rows])
        assert windows.dtype == np.float32
        np.testing.assert_array_equal(windows, expected[:, 0])
        by_id = {clip.clip_id: clip for clip in clips}
        for row in rows:
            clip = by_id[row["clip_id"]]
            jpeg = member(clip.shard, f"{clip.clip_id}.{row['frame']:02d}.jpg")
            assert isinstance(row["image"], Image.Image)
            assert torch.equal(
                torch.from_numpy(np.array(row["image"])).permute(2, 0, 1), pixels(jpeg)
            )
            assert row["frame_time_s"] == row["window_centre_s"] == row["frame"] - 0.5
            assert row["label"] == clip.label == ("" if split == "test" else "tone")


def test_datasets_reads_the_captions_of_the_shards(
    exported: Path, datasets: ModuleType, tiny_data: TinyData
) -> None:
    loaded = datasets.load_dataset(str(exported), "image-text")
    loaded = loaded.cast_column("image", datasets.Image(decode=False))
    assert set(loaded) == {"train", "validation"}
    for name, rows in loaded.items():
        index = pq.read_table(tiny_data.images_dir / "index.parquet").to_pylist()
        images = [row for row in index if row["split"] == SPLITS[name]]
        assert rows["image_id"][:] == [image["image_id"] for image in images]
        for row, image in zip(rows, images, strict=True):
            shard, key = tiny_data.images_dir / image["shard"], image["image_id"]
            assert row["image"] == {"bytes": member(shard, f"{key}.jpg"), "path": f"{key}.jpg"}
            description = json.loads(member(shard, f"{key}.json"))
            assert (row["captions"], row["source"]) == (
                description["captions"], description["source"],
            )  # fmt: skip


def test_card_and_files_state_the_same_features(
    exported: Path, datasets: ModuleType, tiny_data: TinyData
) -> None:
    value, mel = datasets.Value, tiny_data.front_end
    expected = {
        "image-audio": {
            "clip_id": value("string"), "frame": value("int32"), "frame_time_s": value("float64"),
            "window_centre_s": value("float64"), "image": datasets.Image(),
            "window": datasets.Array2D((mel.mel.mels, mel.columns), "float32"),
            "label": value("string"),
        },
        "image-text": {
            "image_id": value("string"), "image": datasets.Image(),
            "captions": datasets.List(value("string")), "source": value("string"),
        },
    }  # fmt: skip
    for name, features in expected.items():
        assert datasets.load_dataset_builder(str(exported), name).info.features == features
        for path in (exported / name).iterdir():
            schema = pq.read_schema(path)
            stated = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
            assert datasets.Features.from_dict(stated) == features
            alone = datasets.Features.from_arrow_schema(schema)  # without the card
            assert alone["image"] == datasets.Image()
    card = yaml.safe_load((exported / "README.md").read_text().split("---\n")[1])
    for info in card["dataset_info"]:
        stated = datasets.Features(expected[info["config_name"]])._to_yaml_list()
        assert info["features"] == stated


def test_files_and_row_groups_are_of_bounded_size(exported: Path) -> None:
    names = [path.name for path in sorted((exported / "image-audio").glob("train-*"))]
    assert names == [f"train-{number:05d}-of-00003.parquet" for number in range(3)]
    for name in names:
        footer = pq.read_metadata(exported / "image-audio" / name)
        groups = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        assert max(groups) == 4  # of about 10.5 kB
        assert sum(groups) <= 19


def test_the_same_shards_give_the_same_bytes(tmp_path: Path, tiny_data: TinyData) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()  # an empty folder will do
        export(tmp_path / name, tiny_data)
    assert files_in(tmp_path / "first") == files_in(tmp_path / "second")


@pytest.mark.parametrize(("count", "frames"), [(1, [6]), (3, [3, 6, 8]), (9, list(FITTING))])
def test_frames_of_a_clip_are_evenly_spaced(
    count: int, frames: list[int], tiny_data: TinyData
) -> None:
    clips = clips_of(tiny_data)
    rows = ImageAudioTable(clips, tiny_data.front_end, count, read_extents)
    table = rows.rows(range(len(rows.sizes)))
    assert table["frame"].to_pylist() == frames * len(clips)
    assert abs(table.nbytes / sum(rows.sizes) - 1) < 0.05


def test_a_clip_shorter_than_a_window_gives_its_middle(tiny_data: TinyData) -> None:
    clip = replace(clips_of(tiny_data)[0], sound_s=2.4)
    row = ImageAudioTable([clip], tiny_data.front_end, None, read_extents).rows(range(1))
    middle = FramePosition(frame=2, centre_seconds=1.2)
    assert row["frame"].to_pylist() == [middle.frame]
    assert row["frame_time_s"].to_pylist() == [1.5]
    assert row["window_centre_s"].to_pylist() == [middle.centre_seconds]
    expected, _ = read_windows([clip], [middle.centre_seconds], tiny_data.front_end)
    np.testing.assert_array_equal(np.array(row["window"].to_pylist(), np.float32), expected[0])


def test_an_image_without_captions_is_left_out(tmp_path: Path, tiny_data: TinyData) -> None:
    captions = pq.read_table(tiny_data.captions_dir / "captions.parquet")
    names = list(dict.fromkeys(captions["image_id"].to_pylist()))
    kept = captions.filter(pc.not_equal(captions["image_id"], names[1]))
    pq.write_table(kept, tmp_path / "captions.parquet")
    table = ImageTextTable(tmp_path, tiny_data.images_dir, "train", read_extents)
    rows = table.rows(range(1, 3))
    assert rows["image_id"].to_pylist() == names[2:4]
    assert len(table.sizes) == 7
    for row in rows.to_pylist():
        own = captions.filter(pc.equal(captions["image_id"], row["image_id"]))
        assert row["captions"] == own["caption"].to_pylist()
        assert row["image"]["path"] == f"{row['image_id']}.jpg"


@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.reset_index is deprecated")
@pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning")
def test_mlcroissant_reads_the_same_records(exported: Path, tiny_data: TinyData) -> None:
    import mlcroissant

    described = mlcroissant.Dataset(exported / "croissant.json")
    issues = described.metadata.ctx.issues
    assert not issues.errors
    assert all("recommended" in warning for warning in issues.warnings)
    assert {warning.split('"')[1].rpartition("/")[2] for warning in issues.warnings} == {
        "citeAs", "datePublished",
    }  # fmt: skip
    shapes = {
        field.id: field.array_shape
        for records in described.metadata.record_sets
        for field in records.fields
        if field.is_array
    }
    assert shapes == {"image-audio/window": "16,151", "image-text/captions": "-1"}
    hashes = {file.content_url: file.sha256 for file in described.metadata.file_objects}
    assert hashes == {
        name: hashlib.sha256(content).hexdigest()
        for name, content in files_in(exported).items()
        if name.endswith(".parquet")
    }
    records = list(described.records("image-audio", filters={"image-audio/split": "validation"}))
    assert len(records) == 16
    fields = [{k.partition("/")[2]: v for k, v in record.items()} for record in records]
    clips = clips_of(tiny_data, "val")
    expected, _ = read_windows(
        [clip for clip in clips for _ in FITTING],
        [frame - 0.5 for _ in clips for frame in FITTING],
        tiny_data.front_end,
    )
    for number, record in enumerate(fields):
        clip, frame = clips[number // 8], FITTING[number % 8]
        assert (record["split"], record["clip_id"], record["frame"]) == (
            b"validation", clip.clip_id.encode(), frame,
        )  # fmt: skip
        np.testing.assert_array_equal(np.array(record["window"]), expected[number, 0])
        jpeg = member(clip.shard, f"{clip.clip_id}.{frame:02d}.jpg")
        assert record["image"].tobytes() == Image.open(io.BytesIO(jpeg)).tobytes()
    texts = list(described.records("image-text"))
    assert [record["image-text/split"] for record in texts].count(b"validation") == 3
    assert all(
        type(caption) is bytes for record in texts for caption in record["image-text/captions"]
    )


@pytest.mark.parametrize(
    ("rows", "category"),
    [(999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**9, "n>1B")],
)
def test_the_card_has_a_size_category_of_the_hub(
    rows: int, category: str, tiny_data: TinyData
) -> None:
    file = ParquetFile(name="a", split="train", rows=rows, bytes=1, arrow_bytes=1, sha256="")
    one = Configuration(name="image-text", columns=(), files=[file], left_out="")
    assert f"size_categories:\n- {category}\n" in dataset_card([one], tiny_data.front_end)


def _killed_at_the_card(folder: Path, data: TinyData) -> None:
    def kill(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    module.dataset_card = kill  # type: ignore[assignment]
    export(folder, data)


def test_a_killed_export_leaves_no_folder_and_the_next_one_is_whole(
    tmp_path: Path, tiny_data: TinyData
) -> None:
    folder = tmp_path / "pairs"
    process = multiprocessing.get_context("fork").Process(
        target=_killed_at_the_card, args=(folder, tiny_data)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not folder.exists()
    assert list(tmp_path.rglob("train-*.parquet"))  # it was at work
    export(folder, tiny_data)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs"]
    assert not list(folder.rglob(".*"))
    assert {"README.md", "croissant.json", "image-audio", "image-text"} == {
        path.name for path in folder.iterdir()
    }


def params_of(data: TinyData, folder: Path) -> Path:
    params = yaml.safe_load(PARAMS.read_text())
    mel, window = data.front_end.mel, data.front_end.window
    params |= {"mel": vars(mel), "window": vars(window)}
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump({k: params[k] for k in ("mel", "window", "machine")}))
    return path


@pytest.fixture
def command(tmp_path: Path, tiny_data: TinyData, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The arguments of an export that works; a test changes one and calls :func:`run`."""
    monkeypatch.chdir(tmp_path)
    return {
        "folder": "pairs",
        "--params": str(params_of(tiny_data, tmp_path)),
        "--av": str(tiny_data.av_dir),
        "--captions": str(tiny_data.captions_dir),
        "--images": str(tiny_data.images_dir),
    }


def run(command: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, *options = command.items()
    words = [word for option in options for word in option]
    monkeypatch.setattr("sys.argv", ["trimodal", "export", "pairs", folder[1], *words])
    main()


def test_the_command_says_what_it_wrote(
    command: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(command | {"--frames-per-clip": "2"}, monkeypatch)
    assert capsys.readouterr().out == (
        "pairs/image-audio: train 14, validation 4, test 2 pairs; left out: clips without audio: 1"
        "\npairs/image-text: train 8, validation 3 pairs\n"
    )
    assert Path("pairs/README.md").exists()


def _copied(command: dict[str, str], option: str) -> Path:
    copy = Path(option.strip("-"))
    shutil.copytree(command[option], copy)
    command[option] = str(copy)
    return copy


def _folder_in_use(_: dict[str, str]) -> None:
    Path("pairs").mkdir()
    Path("pairs/notes.txt").write_text("mine")


def _folder_is_a_file(_: dict[str, str]) -> None:
    Path("pairs").write_text("mine")


def _folder_at_url(command: dict[str, str]) -> None:
    command["folder"] = "s3://bucket/pairs"


def _no_clips(command: dict[str, str]) -> None:
    command["--av"] = "nowhere"


def _no_captions(command: dict[str, str]) -> None:
    command["--captions"] = "nowhere"


def _other_mel(command: dict[str, str]) -> None:
    path = Path(command["--params"])
    path.write_text(path.read_text().replace("mels: 16", "mels: 17"))


def _damaged_clips(command: dict[str, str]) -> None:
    shard = _copied(command, "--av") / "val-000000.tar"
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.write_bytes(content)


def _missing_images(command: dict[str, str]) -> None:
    (_copied(command, "--images") / "val-000000.tar").unlink()


def _cut_captions(command: dict[str, str]) -> None:
    table = _copied(command, "--captions") / "captions.parquet"
    table.write_bytes(table.read_bytes()[:-9])


def _captions_of_other_images(command: dict[str, str]) -> None:
    path = _copied(command, "--captions") / "captions.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 0), path)


def _silent_clips(command: dict[str, str]) -> None:
    path = _copied(command, "--av") / "index.parquet"
    table = pq.read_table(path)
    number = table.schema.get_field_index("mel_columns")
    column = np.zeros(len(table), np.int64)
    pq.write_table(table.set_column(number, table.schema.field(number), [column]), path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_folder_in_use, "pairs: not an empty folder; delete it or name another one"),
        (_folder_is_a_file, "pairs: not an empty folder; delete it or name another one"),
        (_folder_at_url, "s3://bucket/pairs: pairs are exported to a folder on this machine"),
        (_no_clips, "nowhere/index.parquet: missing; run dvc repro extract"),
        (_no_captions, "nowhere/captions.parquet: missing; run dvc repro captions"),
        (_other_mel, "index.parquet: mels is 16, but params and this version have 17"),
        (_damaged_clips, "av/val-000000.tar: not the file that index.parquet describes"),
        (_missing_images, "images/val-000000.tar: not the file that index.parquet describes"),
        (_cut_captions, "captions/captions.parquet: not a complete Parquet file"),
        (_captions_of_other_images, "images/index.parquet: no image-text pairs"),
        (_silent_clips, "av/index.parquet: no image-audio pairs"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(
    damage: Any, words: str, command: dict[str, str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    damage(command)
    before = files_in(Path())
    with pytest.raises(SystemExit) as exit_:
        run(command, monkeypatch)
    assert exit_.value.code == 1
    written = capsys.readouterr()
    assert words in written.err
    assert written.err.count("\n") == 1
    assert written.out == ""
    assert files_in(Path()) == before


@pytest.mark.parametrize("count", ["0", "-1", "all", "1.5"])
def test_frames_per_clip_is_a_whole_number(
    count: str, command: dict[str, str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with pytest.raises(SystemExit) as exit_:
        run(command | {"--frames-per-clip": count}, monkeypatch)
    assert exit_.value.code == 2
    assert "--frames-per-clip" in capsys.readouterr().err


def test_errors_are_the_users(tmp_path: Path, tiny_data: TinyData) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="not an empty folder"):
        export(tmp_path, tiny_data)
