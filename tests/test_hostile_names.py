"""Names from annotation files that would lead elsewhere, through whole stages: whatever they ask
for, nothing outside the stage's folders is used, changed or made.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import video_server as serve
from configs import MACHINE
from data_fixtures import contents, write_clip
from PIL import Image
from test_download import DEMO, DEMO_SOURCE, LOCAL_SERVER, YOUTUBE
from training_fixtures import caption_sources

from trimodal.core.manifest import read_manifest
from trimodal.core.records import DataError
from trimodal.download.download import DownloadConfig, download
from trimodal.preprocess.captions import prepare_captions

# {outside} is the folder that holds the folders of media; "secret" lies in it.
NAMES = [
    "../secret", "../../secret", "{outside}/secret", "/etc/passwd", "..", ".", "", "~/secret",
    "..\\secret", "C:\\secret", "a\0../secret", "../secret\0", "%2e%2e/secret", "file:../secret",
    "$(touch {outside}/made)", "`touch {outside}/made`", "; touch made", "secret\n", "CON", "NUL",
    "-version", "--help", "-y", "x" * 300, ".hidden", "e\u0301", "\u202esecret",
]  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, seconds=12.0)
    return path


@pytest.fixture
def outside(tmp_path: Path, clip: Path) -> Path:
    """A folder with a clip and a picture called secret, around the folders of media and outputs."""
    outside = tmp_path.resolve() / "outside"
    for folder in ("train", "test"):
        (outside / folder).mkdir(parents=True)
    shutil.copy(clip, outside / "secret.mp4")
    Image.new("RGB", (40, 40), "red").save(outside / "secret.jpg")
    return outside


def unchanged(outside: Path, before: dict[str, bytes], *outputs: str) -> bool:
    """Whether the files are as they were, what lies in the outputs apart."""
    now = contents(outside)
    return before == {name: now[name] for name in now if not name.startswith(outputs)}


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def usable(outside: Path) -> set[str]:
    """The clips of the manifest that can be used; none where the stage refused the whole file."""
    manifest = outside / "out" / "clips" / "manifest.parquet"
    if not manifest.exists():
        return set()
    return {row.clip.clip_id for row in read_manifest(manifest) if row.status == "ok"}


@pytest.mark.parametrize("source", ["files", "youtube"])
@pytest.mark.parametrize("name", NAMES)
def test_clips_elsewhere_cannot_be_requested(
    name: str, source: str, outside: Path, clip: Path
) -> None:
    name = name.replace("{outside}", str(outside))
    good = "goodgoodgoo"
    shutil.copy(clip, outside / "train" / f"{good}_000001.mp4")
    shutil.copy(clip, outside / "train" / f"{good}.mp4")  # as the server has it
    shutil.copy(clip, outside / "test" / "video1.mp4")
    train = f"{quoted(name)},1,cat,train\n{good},1,cat,train\n"
    (outside / "train.csv").write_text(train, encoding="utf-8")
    test = f"key,vid_key,video_id,sentence\nr0,m,{quoted(name)},a dog\nr1,m,video1,a dog\n"
    (outside / "test.csv").write_text(test, encoding="utf-8")
    config: DownloadConfig = replace(
        DEMO_SOURCE, source=source, vggsound_csv=str(outside / "train.csv"),
        vggsound_media=str(outside / "train"), msrvtt_csv=str(outside / "test.csv"),
        msrvtt_media=str(outside / "test"),
    )  # fmt: skip
    before = contents(outside)
    out = outside / "out"
    with serve.running(outside / "train") as server:
        youtube = replace(YOUTUBE, page=server.page)
        if "\n" in name:  # two bad lines of four are another file
            with pytest.raises(DataError, match="rows cannot be used"):
                download(config, youtube, DEMO, out / "clips", out / "world", LOCAL_SERVER)
        else:
            download(config, youtube, DEMO, out / "clips", out / "world", LOCAL_SERVER)
        assert set(server.requests) <= {good}
    assert unchanged(outside, before, "out/")
    assert usable(outside) == (set() if "\n" in name else {f"{good}_000001", "video1"})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("data_set", ["coco", "flickr30k"])
def test_images_elsewhere_cannot_be_requested(name: str, data_set: str, outside: Path) -> None:
    name = name.replace("{outside}", str(outside))
    config = caption_sources(outside)
    shutil.copy(outside / "secret.jpg", outside / "coco" / "secret.jpg")
    shutil.copy(outside / "secret.jpg", outside / "flickr" / "secret.jpg")
    if data_set == "coco":
        path = outside / "coco" / "annotations" / "captions_train2017.json"
        annotations = json.loads(path.read_text())
        annotations["images"].append({"id": 999, "file_name": f"{name}.jpg"})
        annotations["annotations"] += [{"image_id": 1, "caption": "a red dog"}] * 200
        annotations["annotations"].append({"image_id": 999, "caption": "a dog"})
        path.write_text(json.dumps(annotations))
    else:
        with (outside / "flickr" / "results.csv").open("a", encoding="utf-8") as rows:
            rows.writelines(f"\n0.jpg| {k}| a pink dog" for k in range(3, 203))
            rows.write(f"\n{name}.jpg| 0| a dog\n")
    before, out = contents(outside), outside / "out"
    prepare_captions(config, out / "captions", out / "images", MACHINE)
    assert unchanged(outside, before, "out/")
    index = pq.read_table(out / "images" / "index.parquet").to_pydict()
    assert len(index["image_id"]) == 11
