"""Labelled media in the forms of classification sets: read, or counted by reason, never fewer."""

import csv
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_fixtures import REAL, needs_real_data, refused

from trimodal.sources.labelled_files import (
    PICTURE_SUFFIXES,
    SOUND_SUFFIXES,
    LabelledFiles,
    read_audioset_files,
    read_class_folders,
    read_esc50,
    read_label_table,
    read_vggsound_files,
)

ID, OTHER_ID = "abcdefghijk", "-bcdefghij_"
ESC_HEADER = "filename,fold,target,category,esc10,src_file,take\n"


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def rows(found: LabelledFiles) -> list[tuple[str, tuple[str, ...], str]]:
    return [(row.file.name, row.labels, row.fold) for row in found.files]


# A folder of classes


def test_subfolders_are_classes(tmp_path: Path) -> None:
    put(tmp_path, "b cat/2.WAV", "b cat/1.mp4", "alligators, crocodiles hissing/x y.flac")
    found = read_class_folders(tmp_path, SOUND_SUFFIXES)
    assert [(row.name, row.labels) for row in found.files] == [
        ("alligators, crocodiles hissing/x y.flac", ("alligators, crocodiles hissing",)),
        ("b cat/1.mp4", ("b cat",)),
        ("b cat/2.WAV", ("b cat",)),
    ]
    assert [row.file.path.read_bytes() for row in found.files[1:]] == [
        b"b cat/1.mp4",
        b"b cat/2.WAV",
    ]
    assert not found.left_out
    assert not found.passed_over


def test_what_is_no_item_of_a_folder_is_counted(tmp_path: Path) -> None:
    put(tmp_path, "dog/1.jpg", "dog/notes.txt", "dog/.2.jpg", "dog/deeper/3.jpg", "README.md",
        "4.jpg", ".git/5.jpg", "dog/a\nb.jpg")  # fmt: skip
    (tmp_path / "empty").mkdir()
    found = read_class_folders(tmp_path, PICTURE_SUFFIXES)
    assert [row.name for row in found.files] == ["dog/1.jpg"]
    assert found.left_out == {
        "file outside the folders of classes": 1,
        "folder inside a class": 1,
        "class without a file": 1,
        "name that is not printable": 1,
    }
    assert found.passed_over == {"another kind of file": 2, "hidden": 2}
    assert found.examples["class without a file"] == str(tmp_path / "empty")
    assert found.examples["name that is not printable"].endswith(r"a\nb.jpg")


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "1.wav", "dog/1.txt")
    refused(lambda: read_class_folders(tmp_path, SOUND_SUFFIXES), str(tmp_path), ".wav")
    missing = tmp_path / "missing"
    refused(lambda: read_class_folders(missing, SOUND_SUFFIXES), str(missing), "not a folder")


# A CSV of files and labels


def table(folder: Path, text: str) -> LabelledFiles:
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return read_label_table(folder / "labels.csv", folder / "media", SOUND_SUFFIXES)


def test_a_table_of_files_and_labels(tmp_path: Path) -> None:
    put(tmp_path / "media", "a.wav", "-b.mp4", "c d.ogg")
    found = table(
        tmp_path,
        '\ufefflabel,extra,file\r\n"bee, wasp, etc. buzzing",,-b.mp4\r\n\r\ndog,1,c d.ogg\r\n',
    )
    assert rows(found) == [
        ("-b.mp4", ("bee, wasp, etc. buzzing",), ""), ("c d.ogg", ("dog",), ""),
    ]  # fmt: skip
    assert not found.left_out


def test_a_table_of_several_labels_and_folds(tmp_path: Path) -> None:
    put(tmp_path / "media", "a.wav", "b.wav")
    found = table(tmp_path, "file,labels,fold\na.wav,dog; cat,one\nb.wav,cat;cat,two\n")
    assert rows(found) == [("a.wav", ("dog", "cat"), "one"), ("b.wav", ("cat",), "two")]


def test_files_are_found_in_archives(tmp_path: Path) -> None:
    put(tmp_path, "folder/a.wav")
    with tarfile.open(tmp_path / "media.tar", "w") as tar:
        tar.add(tmp_path / "folder/a.wav", "some/where/a.wav")
    (tmp_path / "labels.csv").write_text("file,label\na.wav,dog\n")
    found = read_label_table(tmp_path / "labels.csv", tmp_path / "media.tar", SOUND_SUFFIXES)
    assert rows(found) == [("a.wav", ("dog",), "")]
    assert found.files[0].file.member == "some/where/a.wav"


@pytest.mark.parametrize(
    "name", ["../secret.wav", "/etc/secret.wav", "sub/a.wav", "..", "gone.wav"]
)
def test_a_name_is_only_looked_up(name: str, tmp_path: Path) -> None:
    """A file that is not in the folder of media is missing; the others are read."""
    put(tmp_path, "secret.wav", "media/a.wav", "media/sub/a.wav")
    found = table(tmp_path, f"file,label\na.wav,dog\n{name},dog\n")
    assert rows(found) == [("a.wav", ("dog",), "")]
    assert found.left_out == {"file missing": 1}
    assert found.examples == {"file missing": name}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a.wav,dog,1", "a file occurs twice"),
        ("b.wav,dog", "another number of columns than the header"),
        ("b.wav,dog,1,2", "another number of columns than the header"),
        (",dog,1", "no file"),
        ("b.wav, ,1", "an empty label"),
        ("b.wav,dog, ", "no fold"),
    ],
)
def test_a_bad_row_is_counted_and_the_others_are_read(
    row: str, reason: str, tmp_path: Path
) -> None:
    put(tmp_path / "media", "a.wav", "b.wav", "c.wav")
    found = table(tmp_path, f"file,label,fold\na.wav,dog,1\n{row}\nc.wav,cat,2\n")
    assert [name for name, _, _ in rows(found)] == ["a.wav", "c.wav"]
    assert found.left_out == {f"labels: {reason}": 1}


def test_an_empty_label_among_several_is_a_bad_row(tmp_path: Path) -> None:
    put(tmp_path / "media", "a.wav", "b.wav")
    found = table(tmp_path, "file,labels\na.wav,dog;;cat\nb.wav,cat\n")
    assert [name for name, _, _ in rows(found)] == ["b.wav"]
    assert found.left_out == {"labels: an empty label": 1}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("file,fold\na.wav,1\n", "the header lacks label"),
        ("name,label\na.wav,dog\n", "the header lacks file"),
        ("", "the header lacks file, label"),
        ("file,label\n", "no usable rows"),
        ("file,label\na.wav,\nb.wav,\nc.wav,dog\n", "2 of 3 rows cannot be used"),
    ],
)
def test_a_table_in_another_form_is_refused(text: str, named: str, tmp_path: Path) -> None:
    put(tmp_path / "media", "a.wav", "b.wav", "c.wav")
    refused(lambda: table(tmp_path, text), str(tmp_path / "labels.csv"), named)


def test_a_table_that_is_not_text_and_media_that_are_not_there_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(b"file,label\n\xff,dog\n")
    refused(lambda: read_label_table(path, tmp_path, SOUND_SUFFIXES), str(path), "not UTF-8")
    path.write_text("file,label\na.wav,dog\n")
    nowhere = tmp_path / "nowhere"
    refused(lambda: read_label_table(path, nowhere, SOUND_SUFFIXES), str(nowhere))


# ESC-50


def esc50(folder: Path, text: str) -> LabelledFiles:
    (folder / "meta").mkdir(exist_ok=True)
    (folder / "meta/esc50.csv").write_text(ESC_HEADER + text)
    return read_esc50(folder)


def test_esc50s_own_table(tmp_path: Path) -> None:
    put(tmp_path / "audio", "1-100032-A-0.wav", "5-9032-A-0.wav")
    found = esc50(
        tmp_path,
        "1-100032-A-0.wav,1,0,dog,True,100032,A\n1-100038-A-14.wav,1,14,chirping_birds,False,100038,A\n"
        "5-9032-A-0.wav,5,0,dog,True,9032,A\n",
    )
    assert rows(found) == [("1-100032-A-0.wav", ("dog",), "1"), ("5-9032-A-0.wav", ("dog",), "5")]
    assert found.left_out == {"file missing": 1}


def test_an_esc50_category_has_one_target(tmp_path: Path) -> None:
    put(tmp_path / "audio", "a.wav", "b.wav")
    found = esc50(tmp_path, "a.wav,1,0,dog,True,1,A\nb.wav,1,5,dog,True,1,A\n")
    assert rows(found) == [("a.wav", ("dog",), "1")]
    assert found.left_out == {"labels: a category with two targets": 1}


# VGGSound


def test_vggsound_files_are_named_by_id_and_start(tmp_path: Path) -> None:
    put(tmp_path / "media", f"{ID}_000030.mp4", f"{OTHER_ID}_000001.wav", f"{ID}_000040.mp4")
    (tmp_path / "v.csv").write_text(
        f'{ID},30,"dog, barking",test\n{OTHER_ID},1,rain,test\n'
        f"{ID},40,rain,train\n{ID},50,rain,test\n"
    )
    found = read_vggsound_files(tmp_path / "v.csv", tmp_path / "media", SOUND_SUFFIXES, "test")
    assert rows(found) == [
        (f"{ID}_000030.mp4", ("dog, barking",), ""), (f"{OTHER_ID}_000001.wav", ("rain",), ""),
    ]  # fmt: skip
    assert found.left_out == {"file missing": 1}
    assert found.examples == {"file missing": f"{ID}_000050"}


def test_bad_rows_of_vggsound_are_counted(tmp_path: Path) -> None:
    put(tmp_path / "media", f"{ID}_000030.mp4")
    (tmp_path / "v.csv").write_text(f"{ID},30,dog,test\n{ID},x,dog,test\n")
    found = read_vggsound_files(tmp_path / "v.csv", tmp_path / "media", SOUND_SUFFIXES, "test")
    assert found.left_out == {"vggsound: start second is no whole number": 1}


@needs_real_data
def test_the_real_clips_with_their_official_labels() -> None:
    found = read_vggsound_files(REAL / "vggsound.csv", REAL / "clips", SOUND_SUFFIXES, "test")
    with (REAL / "vggsound.csv").open(newline="") as lines:
        official = [
            (f"{row[0]}_{int(row[1]):06d}.mp4", row[2], row[3]) for row in csv.reader(lines)
        ]
    assert [(row.file.name, row.labels[0], "test") for row in found.files] == [
        row for row in official if row[2] == "test"
    ]
    assert not found.left_out


# AudioSet


def audioset(folder: Path, text: str) -> LabelledFiles:
    (folder / "eval_segments.csv").write_text(text)
    return read_audioset_files(folder / "eval_segments.csv", folder / "media", SOUND_SUFFIXES)


HEAD = (
    "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=2, num_segs=2\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
)


@pytest.mark.parametrize(
    "name",
    [ID, f"Y{ID}", f"{ID}_30", f"{ID}_000030", f"Y{ID}_30.000", f"{ID}_30000"],
)
def test_audioset_segments_by_the_names_of_the_known_downloaders(name: str, tmp_path: Path) -> None:
    put(tmp_path / "media", f"{name}.wav", f"{OTHER_ID}.flac")
    found = audioset(
        tmp_path,
        f'{HEAD}{ID}, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n'
        f'{OTHER_ID}, 0.000, 10.000, "/m/068hy"\n',
    )
    assert rows(found) == [
        (f"{name}.wav", ("/m/09x0r", "/t/dd00088"), ""), (f"{OTHER_ID}.flac", ("/m/068hy",), ""),
    ]  # fmt: skip
    assert not found.left_out


def test_the_most_specific_name_counts(tmp_path: Path) -> None:
    put(tmp_path / "media", f"{ID}.wav", f"{ID}_30.wav", f"{ID}_40.wav")
    found = audioset(tmp_path, f'{ID}, 30.000, 40.000, "/m/09x0r"\n')
    assert rows(found) == [(f"{ID}_30.wav", ("/m/09x0r",), "")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (f'{ID}, 30.000, 40.000, "/m/09x0r"', "a file occurs twice"),
        (f"{ID}, 50.000, 60.000, /m/09x0r, /m/068hy", "row has not 4 columns"),
        ('../../../ab, 5.000, 6.000, "/m/09x0r"', "no YouTube id"),
        (f'{ID}, -5.000, 6.000, "/m/09x0r"', "start second is no number"),
        (f'{ID}, nan, 6.000, "/m/09x0r"', "start second is no number"),
        (f'{ID}, 5.000, 6.000, ""', "an empty label"),
    ],
)
def test_bad_rows_of_audioset_are_counted(row: str, reason: str, tmp_path: Path) -> None:
    put(tmp_path / "media", f"{ID}_30.wav")
    found = audioset(tmp_path, f'{HEAD}{ID}, 30.000, 40.000, "/m/09x0r"\n{row}\n')
    assert len(found.files) == 1
    assert found.left_out == {f"audioset: {reason}": 1}


def test_two_files_of_one_stem_are_the_first_in_order(tmp_path: Path) -> None:
    put(tmp_path / "media", f"{ID}.wav", f"{ID}.mp4", f"{ID}.txt")
    found = audioset(tmp_path, f'{ID}, 30.000, 40.000, "/m/09x0r"\n')
    assert [name for name, _, _ in rows(found)] == [f"{ID}.mp4"]


READERS: list[Callable[[Path], Any]] = [
    lambda folder: read_label_table(folder / "f.csv", folder, SOUND_SUFFIXES),
    lambda folder: read_vggsound_files(folder / "f.csv", folder, SOUND_SUFFIXES, "test"),
    lambda folder: read_audioset_files(folder / "f.csv", folder, SOUND_SUFFIXES),
]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("content", [b"", b"\0\0\0", b"\xff", b"a,b,c\n" * 5, b'"\n' * 9])
def test_rubbish_is_refused_by_name(
    read: Callable[[Path], Any], content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "f.csv").write_bytes(content)
    refused(lambda: read(tmp_path), str(tmp_path / "f.csv"))
