"""Official test files of videos, sounds, images and clips, in each form, by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from repository import ROOT

from trimodal.cli import main
from trimodal.core.records import DataError
from trimodal.download.local import _clip_name
from trimodal.sources.clip_lists import read_clip_list
from trimodal.sources.image_sets import read_image_set
from trimodal.sources.msrvtt import read_queries, read_videos
from trimodal.sources.sounds import find_sounds, read_captioned_sounds
from trimodal.sources.video_lists import FORMS, write_video_list

SHARED = ROOT.parent / "shared" / "data"
MSVD = "# name and sentence\n\n-4wsuPCjDBc_5_15 a squirrel eats\n-4wsuPCjDBc_5_15 it, chews\n" + (
    'ab_1_2 a "dog"\n'
)
MSVD_CORPUS = (
    "VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description\n"
    "-4wsuPCjDBc,5,15,1,clean,30,English,a squirrel eats\n"
    "-4wsuPCjDBc,5,15,1,clean,30,Slovene,veverica je\n"
    '-4wsuPCjDBc,5,15,2,clean,30,English,"it, chews"\n'
    'ab,1,2,1,clean,30,English,"a ""dog"""\n'
)
VATEX = json.dumps(
    [
        {"videoID": "-4wsuPCjDBc_000005_000015", "enCap": ["a", "b, c"], "chCap": ["x"]},
        {"videoID": "ab_000001_000002", "enCap": ["d"]},
    ]
)
DIDEMO = json.dumps(
    [
        {"video": "12@N02_13_87e.mov", "description": "a dog", "annotation_id": 1},
        {"video": "13@N02_13_87e.avi", "description": "a cat", "annotation_id": 2},
        {"video": "12@N02_13_87e.mov", "description": "it runs.", "annotation_id": 3},
    ]
)
LSMDC = (
    "1012_Unbreakable_00.05.16.065-00.05.21.941\t1\t2\t3\t4\tSOMEONE turns.\n"
    "1012_Unbreakable_00.06.00.000-00.06.01.000\t1\t2\t3\t4\tHe goes, slowly.\n"
)
VGGSOUND = 'abcdefghijk,30,"dog, barking",test\nabcdefghijk,60,cat,train\n-bcdefghijk,1,cat,test\n'
CASES = {
    "msvd": ("AllVideoDescriptions.txt", MSVD, [
        ("-4wsuPCjDBc_5_15", "a squirrel eats"), ("-4wsuPCjDBc_5_15", "it, chews"),
        ("ab_1_2", 'a "dog"'),
    ]),
    "msvd corpus": ("corpus.csv", MSVD_CORPUS, [
        ("-4wsuPCjDBc_5_15", "a squirrel eats"), ("-4wsuPCjDBc_5_15", "it, chews"),
        ("ab_1_2", 'a "dog"'),
    ]),
    "vatex": ("vatex.json", VATEX, [
        ("-4wsuPCjDBc_000005_000015", "a"), ("-4wsuPCjDBc_000005_000015", "b, c"),
        ("ab_000001_000002", "d"),
    ]),
    "didemo": ("test_data.json", DIDEMO, [
        ("12_N02_13_87e", "a dog it runs."), ("13_N02_13_87e", "a cat"),
    ]),
    "lsmdc": ("lsmdc.csv", LSMDC, [
        ("1012_Unbreakable_00_05_16_065-00_05_21_941", "SOMEONE turns."),
        ("1012_Unbreakable_00_06_00_000-00_06_01_000", "He goes, slowly."),
    ]),
    "vggsound": ("vggsound.csv", VGGSOUND, [
        ("abcdefghijk_000030", "dog, barking"), ("-bcdefghijk_000001", "cat"),
    ]),
    "msrvtt": ("test.csv", "key,vid_key,video_id,sentence\nret0,msr1,video1,a dog\n", [
        ("video1", "a dog"),
    ]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_official_files_of_videos_become_lists(case: str, tmp_path: Path) -> None:
    name, content, expected = CASES[case]
    (tmp_path / name).write_text(content)
    out = tmp_path / "list.csv"
    videos, sentences, _ = write_video_list(case.split()[0], tmp_path / name, out)
    queries, bad_rows = read_queries(out)
    assert [(query.video_id, query.sentence) for query in queries] == expected
    assert not bad_rows
    assert (videos, sentences) == (len({video for video, _ in expected}), len(expected))
    assert len({query.query_id for query in queries}) == len(queries)
    clips, _ = read_videos(out)
    assert [clip.clip_id for clip in clips] == list(dict.fromkeys(v for v, _ in expected))


def test_every_form_has_a_case() -> None:
    assert set(FORMS) == {case.split()[0] for case in CASES}


def test_media_of_such_names_are_found() -> None:
    assert _clip_name("12@N02_13_87e.mov") == "12_N02_13_87e"
    lsmdc = "1012_Unbreakable_00.05.16.065-00.05.21.941"
    assert _clip_name(f"{lsmdc}.avi") == CASES["lsmdc"][2][0][0]


def test_a_split_chooses_videos_and_several_data_sets_share_a_list(tmp_path: Path) -> None:
    (tmp_path / "msvd.txt").write_text(MSVD)
    (tmp_path / "didemo.json").write_text(DIDEMO)
    (tmp_path / "split.txt").write_text("ab_1_2\n")
    out = tmp_path / "list.csv"
    _, _, left_out = write_video_list(
        "msvd", tmp_path / "msvd.txt", out, videos=tmp_path / "split.txt"
    )
    assert left_out == {"video of no interest": 1}
    write_video_list("didemo", tmp_path / "didemo.json", out)
    names = [query.video_id for query in read_queries(out)[0]]
    assert names == ["ab_1_2", "12_N02_13_87e", "13_N02_13_87e"]
    with pytest.raises(DataError, match=r"has 2 of these videos already, as 12_N02"):
        write_video_list("didemo", tmp_path / "didemo.json", out)
    (tmp_path / "split.txt").write_text("ab_1_2\nnowhere\n")
    with pytest.raises(DataError, match=r"1 of 2 videos have no sentence .* nowhere"):
        write_video_list("msvd", tmp_path / "msvd.txt", out, videos=tmp_path / "split.txt")


@pytest.mark.parametrize(
    ("form", "name", "content", "message"),
    [
        ("msvd", "a.txt", "ab_1_2\ncd_1_2\n", "empty sentence"),
        ("msvd", "a.csv", "VideoID,Start\n", "header lacks End, Language, Description"),
        ("vatex", "a.json", "{}", "not a JSON list"),
        ("vatex", "a.json", '[{"videoID": 1}, {"enCap": []}]', "2 of 2 rows cannot be used"),
        ("didemo", "a.json", "[]", "no usable rows"),
        ("didemo", "a.json", '[{"video": "a@b.mov", "description": "c"}, '
         '{"video": "a_b.mov", "description": "c"}]', "a@b and a_b would both be a_b"),
        ("lsmdc", "a.csv", "a\tb\nc\td\n", "6 columns between tabs"),
    ],
)  # fmt: skip
def test_other_files_are_refused_by_name(
    form: str, name: str, content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        write_video_list(form, tmp_path / name, tmp_path / "out.csv")
    assert name in str(caught.value)
    assert not (tmp_path / "out.csv").exists()


def test_the_command_writes_a_list_and_says_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "vatex.json").write_text(VATEX)
    out = tmp_path / "list.csv"
    monkeypatch.setattr(
        "sys.argv", ["trimodal", "sentences", "vatex", str(tmp_path / "vatex.json"), str(out)]
    )
    main()
    assert capsys.readouterr().out == f"{out}: added 3 sentences of 2 videos; nothing left out\n"
    assert len(read_queries(out)[0]) == 3


# Sounds

CLOTHO = (
    "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
    'Rain (1) [far].wav,a,b,"c, d",e,f\nx.wav,1,2,3,4,5\n'
)
AUDIOCAPS = (
    "audiocap_id,youtube_id,start_time,caption\n"
    "1,abcdefghijk,30,a dog\n2,abcdefghijk,60,a cat\n3,abcdefghijk,30,it barks\n"
)


def test_clotho(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(CLOTHO)
    sounds, bad_rows = read_captioned_sounds(tmp_path / "c.csv")
    assert [(sound.sound_id, sound.captions) for sound in sounds] == [
        ("Rain (1) [far].wav", ("a", "b", "c, d", "e", "f")), ("x.wav", ("1", "2", "3", "4", "5")),
    ]  # fmt: skip
    assert not bad_rows
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "Rain (1) [far].flac").touch()
    found = find_sounds(sounds, tmp_path / "media")
    assert [of.file and of.file.name for of in found] == ["Rain (1) [far].flac", None]
    with pytest.raises(DataError, match="no such folder or archive"):
        find_sounds(sounds, tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name", ["abcdefghijk_30", "Yabcdefghijk_30000", "abcdefghijk_000030", "Yabcdefghijk"]
)
def test_audiocaps(name: str, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(AUDIOCAPS)
    sounds, _ = read_captioned_sounds(tmp_path / "c.csv")
    assert [(sound.sound_id, sound.captions, sound.youtube_id) for sound in sounds] == [
        ("abcdefghijk_000030", ("a dog", "it barks"), "abcdefghijk"),
        ("abcdefghijk_000060", ("a cat",), "abcdefghijk"),
    ]
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / f"{name}.wav").touch()
    assert find_sounds(sounds, tmp_path / "media")[0].file is not None


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("../x.wav,1,2,3,4,5", "unsafe file name"),
        ("y.wav,1,2,,4,5", "empty caption"),
        ("y.wav,1,2", "another number of columns than the header"),
        ("x.wav,1,2,3,4,5", "a sound occurs twice"),
    ],
)
def test_bad_rows_of_sounds_are_counted(row: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(f"{CLOTHO}{row}\n")
    sounds, bad_rows = read_captioned_sounds(tmp_path / "c.csv")
    assert (len(sounds), bad_rows) == (2, {f"sounds: {reason}": 1})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("4,abc,30,a", "no YouTube id"),
        ("4,abcdefghijk,x,a", "start second is no whole number"),
        ("3,abcdefghijk,90,a", "an audiocap_id occurs twice"),
    ],
)
def test_bad_rows_of_audiocaps_are_counted(row: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(f"{AUDIOCAPS}{row}\n")
    sounds, bad_rows = read_captioned_sounds(tmp_path / "c.csv")
    assert (len(sounds), bad_rows) == (2, {f"sounds: {reason}": 1})


def test_another_csv_of_sounds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"c\.csv: neither Clotho's header"):
        read_captioned_sounds(tmp_path / "c.csv")


# Images


def karpathy(split_of: dict[int, str]) -> str:
    return json.dumps(
        {"images": [
            {"cocoid": number, "filename": f"COCO_val2014_{number:012d}.jpg", "split": split,
             "sentences": [{"raw": f"caption {k} of {number}"} for k in range(2)]}
            for number, split in split_of.items()
        ]}
    )  # fmt: skip


def test_karpathys_test_split_in_the_order_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "dataset_coco.json").write_text(
        karpathy({7: "test", 3: "test", 5: "val", 1: "restval"})
    )
    (tmp_path / "val2017").mkdir()
    (tmp_path / "train2017").mkdir()
    (tmp_path / "train2017" / "000000000003.jpg").touch()
    found, _ = read_image_set(tmp_path, "coco", "karpathy", "test")
    assert [of.image.image_id for of in found] == ["coco_000000000007", "coco_000000000003"]
    assert [of.file is not None for of in found] == [False, True]
    assert found[0].image.captions == ("caption 0 of 7", "caption 1 of 7")
    with pytest.raises(DataError, match=r"dataset_coco\.json: no usable rows"):
        read_image_set(tmp_path, "coco", "karpathy", "dev")


def test_official_coco(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    content = {"images": [{"id": 9, "file_name": "000000000009.jpg"}],
               "annotations": [{"image_id": 9, "caption": "a dog"}]}  # fmt: skip
    (tmp_path / "annotations" / "captions_val2017.json").write_text(json.dumps(content))
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / "000000000009.jpg").touch()
    found, _ = read_image_set(tmp_path, "coco", "official", "val")
    assert [(of.image.captions, of.file is not None) for of in found] == [(("a dog",), True)]
    with pytest.raises(DataError, match="splits train and val only"):
        read_image_set(tmp_path, "coco", "official", "test")


@pytest.fixture
def flickr8k(tmp_path: Path) -> Path:
    (tmp_path / "Flicker8k_Dataset").mkdir()
    (tmp_path / "Flicker8k_Dataset" / "10_a.jpg").touch()
    tokens = "10_a.jpg#0\tA dog .\n10_a.jpg#1\tIt runs .\n11_b.jpg#0\tA cat .\n"
    (tmp_path / "Flickr8k.token.txt").write_text(tokens)
    (tmp_path / "Flickr_8k.testImages.txt").write_text("11_b.jpg\n10_a.jpg\n12_c.jpg\n")
    return tmp_path


def test_official_flickr8k(flickr8k: Path) -> None:
    found, left_out = read_image_set(flickr8k, "flickr8k", "official", "test")
    assert [(of.image.image_id, of.image.captions, of.file is None) for of in found] == [
        ("flickr_11_b", ("A cat .",), True), ("flickr_10_a", ("A dog .", "It runs ."), False),
    ]  # fmt: skip
    assert left_out == {"flickr8k: image of the split without a caption": 1}
    with pytest.raises(DataError, match="splits train, dev, test"):
        read_image_set(flickr8k, "flickr8k", "official", "val")


def test_bad_rows_of_flickr8k_are_counted(flickr8k: Path) -> None:
    with (flickr8k / "Flickr8k.token.txt").open("a") as file:
        file.write("no tab\n")
    _, left_out = read_image_set(flickr8k, "flickr8k", "official", "test")
    assert left_out["flickr8k: row is not 'name#number', a tab and a caption"] == 1


def test_the_real_flickr8k_has_a_thousand_of_dev() -> None:
    if not SHARED.exists():
        pytest.skip("needs ../shared/data")
    found, left_out = read_image_set(SHARED / "flickr8k", "flickr8k", "official", "dev")
    assert len(found) == sum(of.file is not None for of in found) == 1000
    assert {len(of.image.captions) for of in found} == {5}
    assert not left_out
    with pytest.raises(DataError, match=r"no image of split test \(it has: dev, train\)"):
        read_image_set(SHARED / "flickr8k", "flickr8k", "official", "test")


# Clips


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (VGGSOUND, ["abcdefghijk_000030", "-bcdefghijk_000001"]),
        ('a_1.mp4,dog\n-b.mp4,"c, d"\n', ["a_1", "-b"]),
        ("video_id,sentence\na,x\nb,y\na,z\n", ["a", "b"]),
        ("video_id\na\nb\n", ["a", "b"]),
    ],
)
def test_lists_of_clips(content: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text(content)
    assert read_clip_list(tmp_path / "clips.csv")[0] == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b,c\n", "neither VGGSound's"),
        ("", "neither VGGSound's"),
        ("video_id\n", "no usable rows"),
        ("a.mp4,x\na.mp4,x\nb.mp4,x\nb.mp4\n", "2 of 4 rows cannot be used"),
    ],
)
def test_other_lists_of_clips_are_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_clip_list(tmp_path / "clips.csv")


def test_the_real_vggsound_test_split() -> None:
    if not SHARED.exists():
        pytest.skip("needs ../shared/data")
    names, left_out = read_clip_list(SHARED / "annotations" / "vggsound_test_split.csv")
    assert (len(names), dict(left_out)) == (15446, {})


def test_a_list_of_two_columns_counts_its_bad_rows(tmp_path: Path) -> None:
    rows: list[Any] = [f"v{number},a dog" for number in range(400)]
    (tmp_path / "l.csv").write_text("\n".join(["video_id,sentence", *rows, "v,", "../v,a", "v"]))
    queries, bad_rows = read_queries(tmp_path / "l.csv")
    assert len(queries) == 400
    assert bad_rows == {
        "msrvtt: empty sentence": 1,
        "msrvtt: unsafe name": 1,
        "msrvtt: another number of columns than the header": 1,
    }
