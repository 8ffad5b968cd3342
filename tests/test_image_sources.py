"""Images are found in folders and archives with the names that the data sets use."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from archive_fixtures import KINDS, cut, pack
from data_fixtures import refused

from trimodal.core.archives import read_file
from trimodal.core.records import DataError
from trimodal.sources.image_files import (
    Annotations,
    ImageFile,
    read_coco_files,
    read_flickr30k_files,
)


def write_coco(folder: Path, splits: dict[str, list[int]]) -> Path:
    """Annotations only: image n of a split is ``<n>.jpg``."""
    for split, numbers in splits.items():
        path = folder / "annotations" / f"captions_{split}2017.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"id": n, "file_name": f"{n:012d}.jpg"} for n in numbers]
        texts = [{"image_id": n, "caption": f"image {n}"} for n in numbers]
        path.write_text(json.dumps({"images": rows, "annotations": texts}))
    return folder


def write_flickr(folder: Path, names: list[str]) -> Path:
    folder.mkdir(parents=True)
    rows = ["image_name| comment_number| comment", *(f"{name}| 0| a dog" for name in names)]
    (folder / "results.csv").write_text("\n".join(rows))
    return folder


def write_images(path: Path, names: list[str]) -> None:
    """A folder or archive of files; each file contains the names of both."""
    files = {f"{path.name.split('.')[0]}/{name}": f"{path.name} {name}".encode() for name in names}
    if path.name.endswith(KINDS):
        pack(path, files)
    else:
        for inside, content in files.items():
            file = path / Path(inside).name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def ids_and_contents(files: list[ImageFile]) -> list[tuple[str, str, str]]:
    """Id, split and content of the files; '' for a missing one."""
    return [
        (f.image.image_id, f.image.split, read_file(f.file).decode() if f.file else "")
        for f in files
    ]


def jpg(*numbers: int) -> list[str]:
    return [f"{number:012d}.jpg" for number in numbers]


@pytest.mark.parametrize("val", ["val2017", "val2017.zip", "val2017.tar"])
@pytest.mark.parametrize("train", ["train2017", "train2017.zip", "train2017.tar.gz"])
def test_coco_images_are_read_from_the_folder_or_archive_of_their_split(
    train: str, val: str, tmp_path: Path
) -> None:
    coco = write_coco(tmp_path, {"train": [1, 2, 3], "val": [4, 5]})
    write_images(coco / train, jpg(1, 3, 4))
    write_images(coco / val, jpg(4, 2))
    files, left_out = read_coco_files(coco, "official")
    assert ids_and_contents(files) == [
        ("coco_000000000001", "train", f"{train} 000000000001.jpg"),
        ("coco_000000000002", "train", ""),
        ("coco_000000000003", "train", f"{train} 000000000003.jpg"),
        ("coco_000000000004", "val", f"{val} 000000000004.jpg"),
        ("coco_000000000005", "val", ""),
    ]
    assert not left_out


def test_coco_left_out_counts_of_both_splits_are_summed(tmp_path: Path) -> None:
    coco = write_coco(tmp_path, {"train": [1, 2], "val": [4]})
    for split, extra in (("train", "1"), ("val", "2")):
        path = coco / "annotations" / f"captions_{split}2017.json"
        content: dict[str, Any] = json.loads(path.read_text())
        content["annotations"] += [{"image_id": 1 if split == "train" else 4, "caption": " "}]
        content["images"] += [{"id": 70, "file_name": f"{extra}.jpg"}] * (split == "val")
        path.write_text(json.dumps(content))
        write_images(coco / f"{split}2017", jpg(1))
    _, left_out = read_coco_files(coco, "official")
    assert left_out == {"coco: empty caption": 2, "coco: image without a caption": 1}


def test_coco_karpathy_images_can_be_in_either_split(tmp_path: Path) -> None:
    write_images(tmp_path / "train2017.zip", jpg(9))
    write_images(tmp_path / "val2017", jpg(42))
    sentences = [{"raw": "a dog"}]
    rows = [
        {"filename": "x", "cocoid": number, "split": split, "sentences": sentences}
        for number, split in ((42, "restval"), (9, "val"), (7, "train"), (8, "test"))
    ]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": rows}))
    files, left_out = read_coco_files(tmp_path, "karpathy")
    assert ids_and_contents(files) == [
        ("coco_000000000007", "train", ""),
        ("coco_000000000009", "val", "train2017.zip 000000000009.jpg"),
        ("coco_000000000042", "train", "val2017 000000000042.jpg"),
    ]
    assert left_out == {"coco: image of the test split": 1}


@pytest.mark.parametrize(
    "name",
    [
        "images", "images.zip", "images.tar", "images.tgz", "flickr30k-images",
        "flickr30k-images.zip", "flickr30k-images.tar", "flickr30k-images.tar.gz",
        "flickr30k_images", "flickr30k_images.zip",
    ],
)  # fmt: skip
def test_flickr_images_under_every_name(name: str, tmp_path: Path) -> None:
    flickr = write_flickr(tmp_path / "f", ["a.jpg", "b.jpeg", "c.PNG", "d.jpg"])
    write_images(flickr / name, ["a.jpg", "b.jpeg", "c.PNG", "other.jpg", "readme.txt"])
    files, left_out = read_flickr30k_files(flickr, "official")
    assert [text for _, _, text in ids_and_contents(files)] == [
        f"{name} a.jpg", f"{name} b.jpeg", f"{name} c.PNG", "",
    ]  # fmt: skip
    assert not left_out


def test_flickr_first_of_several_candidates_is_used(tmp_path: Path) -> None:
    flickr = write_flickr(tmp_path / "f", ["a.jpg"])
    for name in ("flickr30k-images.tar", "images.zip", "flickr30k_images"):
        write_images(flickr / name, ["a.jpg"])
    files, _ = read_flickr30k_files(flickr, "official")
    assert [text for _, _, text in ids_and_contents(files)] == ["images.zip a.jpg"]


def test_flickr_karpathy_splits(tmp_path: Path) -> None:
    write_images(tmp_path / "images", ["a.jpg", "b.jpg"])
    rows = [
        {"filename": name, "split": split, "sentences": [{"raw": "a dog"}]}
        for name, split in (("b.jpg", "train"), ("a.jpg", "val"), ("c.jpg", "test"))
    ]
    (tmp_path / "dataset_flickr30k.json").write_text(json.dumps({"images": rows}))
    files, left_out = read_flickr30k_files(tmp_path, "karpathy")
    assert ids_and_contents(files) == [
        ("flickr_a", "val", "images a.jpg"),
        ("flickr_b", "train", "images b.jpg"),
    ]
    assert left_out == {"flickr30k: image of the test split": 1}


@pytest.mark.parametrize(("annotations"), ["official", "karpathy"])
def test_missing_images_are_an_error_that_lists_the_candidates(
    annotations: Annotations, tmp_path: Path
) -> None:
    flickr = write_flickr(tmp_path / "f", ["a.jpg"])
    row = {"filename": "a.jpg", "cocoid": 1, "split": "val", "sentences": [{"raw": "a dog"}]}
    (flickr / "dataset_flickr30k.json").write_text(json.dumps({"images": [row]}))
    refused(
        lambda: read_flickr30k_files(flickr, annotations), str(flickr), "no images",
        "images, images.zip, images.tar, images.tar.gz, images.tgz, flickr30k-images,",
        "flickr30k_images.tgz",
    )  # fmt: skip
    coco = write_coco(tmp_path / "c", {"train": [1], "val": [4]})
    (coco / "dataset_coco.json").write_text(json.dumps({"images": [row]}))
    write_images(coco / "train2017", jpg(1))
    refused(
        lambda: read_coco_files(coco, annotations), str(coco), "looked for val2017, val2017.zip"
    )


def test_broken_archive_is_named_and_members_before_the_damage_are_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flickr = write_flickr(tmp_path / "f", ["a.jpg", "b.jpg"])
    write_images(flickr / "images.tar", ["a.jpg", "b.jpg"])
    cut(flickr / "images.tar", 1024 + 200)
    with caplog.at_level(logging.INFO, "trimodal"):
        files, _ = read_flickr30k_files(flickr, "official")
    assert [text for _, _, text in ids_and_contents(files)] == ["images.tar a.jpg", ""]
    assert "images.tar: a broken archive" in caplog.text


def test_the_training_split_of_a_splits_csv_and_images_held_out_of_it(tmp_path: Path) -> None:
    flickr = write_flickr(tmp_path / "f", [f"{letter}.jpg" for letter in "abcdef"])
    write_images(flickr / "images", ["a.jpg"])
    files, _ = read_flickr30k_files(flickr, "official")
    names = [file.image.file_name for file in files]
    assert len(names) > 3
    rows = [f"{name},{'dev' if k == 1 else 'train'}" for k, name in enumerate(names)]
    (flickr / "splits.csv").write_text("\n".join(["image_name,split", *rows, ""]))
    split, left_out = read_flickr30k_files(flickr, "splits")
    assert [file.image.file_name for file in split] == [names[0], *names[2:]]
    assert left_out["flickr30k: image of another split"] == 1
    held, _ = read_flickr30k_files(flickr, "splits", 2)
    by_split = {name: [f for f in held if f.image.split == name] for name in ("train", "val")}
    assert len(by_split["val"]) == 2
    assert len(by_split["train"]) == len(names) - 3
    assert held == read_flickr30k_files(flickr, "splits", 2)[0]
    with pytest.raises(DataError, match=r"captions\.flickr30k_held_out: 99, but there are"):
        read_flickr30k_files(flickr, "splits", 99)
    (flickr / "splits.csv").unlink()
    with pytest.raises(FileNotFoundError):
        read_flickr30k_files(flickr, "splits")
