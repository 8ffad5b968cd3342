"""The package's classes and templates; files of users; faulty ones are refused by file and line."""

import csv
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from data_fixtures import REAL, needs_real_data, refused

from trimodal.download.demo.captions import NOUNS, VERBS
from trimodal.evaluation.prompt_files import read_classes, read_templates

PROMPTS = Path(__file__).parents[1] / "trimodal/evaluation/prompts"
CLASSES = sorted(path.stem.removeprefix("classes_") for path in PROMPTS.glob("classes_*.txt"))
TEMPLATES = sorted(path.stem.removeprefix("templates_") for path in PROMPTS.glob("templates_*.txt"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "own.txt"


@pytest.mark.parametrize(
    ("name", "count"), [("vggsound", 309), ("esc50", 50), ("audioset", 344), ("demo", 16)]
)
def test_the_lists_have_as_many_classes_as_they_say(name: str, count: int) -> None:
    classes = read_classes(name)
    assert len(classes.labels) == len(classes.words) == count
    assert f" {count} " in (PROMPTS / f"classes_{name}.txt").read_text().split("\n")[1]
    assert re.fullmatch(rf"classes_{name}\.txt version 1 \([0-9a-f]{{16}}\)", classes.origin)


def test_every_file_of_the_package_is_read_and_packaged() -> None:
    assert CLASSES == ["audioset", "demo", "esc50", "vggsound"]
    assert TEMPLATES == ["name", "picture", "sound", "video"]
    assert len(list(PROMPTS.iterdir())) == len(CLASSES + TEMPLATES)
    for name in TEMPLATES:
        assert "{}" in read_templates(name).sentences
    pyproject = tomllib.loads((PROMPTS.parents[2] / "pyproject.toml").read_text())
    patterns = pyproject["tool"]["setuptools"]["package-data"]["trimodal"]
    for path in PROMPTS.iterdir():
        name = path.relative_to(PROMPTS.parents[1]).as_posix()
        assert any(fnmatch(name, pattern) for pattern in patterns), name


@needs_real_data
def test_vggsounds_classes_are_those_of_its_test_split() -> None:
    with (REAL / "annotations/vggsound_test_split.csv").open(newline="") as rows:
        labels = {label for _, label in csv.reader(rows)}
    assert set(read_classes("vggsound").labels) == labels


def test_the_demos_classes_are_what_its_things_do() -> None:
    whole = {f"{NOUNS[kind][0]} {VERBS[kind][0].ongoing}" for kind in NOUNS}
    assert set(read_classes("demo").labels) == whole


def test_words_can_differ_from_the_label() -> None:
    classes = read_classes("esc50")
    words = dict(zip(classes.labels, classes.words, strict=True))
    assert words["dog"] == "dog"
    assert words["sea_waves"] == "sea waves"
    assert not [text for text in classes.words if "_" in text]
    assert classes.labels[0] == "dog"  # in the order of ESC-50's targets
    assert classes.labels[49] == "hand_saw"


def test_a_file_of_ones_own(file: Path) -> None:
    file.write_text("\ufeff# version 12\n\n# mine\r\nn01440764 | tench, a fish\ndog barking\n")
    classes = read_classes(str(file))
    assert classes.labels == ("n01440764", "dog barking")
    assert classes.words == ("tench, a fish", "dog barking")
    assert classes.origin.startswith("own.txt version 12 (")
    file.write_text("# version 2\na {} is heard\nthis is {}.\n")
    assert read_templates(str(file)).sentences == ("a {} is heard", "this is {}.")
    assert read_templates(str(file)).prompts("dog") == ["a dog is heard", "this is dog."]


def test_another_content_has_another_origin(file: Path) -> None:
    file.write_text("# version 1\ndog\n")
    before = read_classes(str(file)).origin
    file.write_text("# version 1\ncat\n")
    assert read_classes(str(file)).origin != before


def test_audiosets_own_file_gives_ids_and_names(tmp_path: Path) -> None:
    path = tmp_path / "class_labels_indices.csv"
    path.write_text('index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man"\n')
    classes = read_classes(str(path))
    assert classes.labels == ("/m/09x0r", "/m/05zppz")
    assert classes.words == ("Speech", "Male speech, man")
    assert re.fullmatch(r"class_labels_indices\.csv \([0-9a-f]{16}\)", classes.origin)
    path.write_text("mid,display_name\n/m/09x0r,Speech\n")
    refused(lambda: read_classes(str(path)), str(path), "'index,mid,display_name'")
    path.write_text("index,mid,display_name\n0,/m/09x0r,Male speech, man\n")
    refused(lambda: read_classes(str(path)), str(path), "row 2")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("dog\n", ":1: the first line is not '# version N'"),
        ("# version one\ndog\n", ":1: the first line is not '# version N'"),
        ("", ":1: the first line is not '# version N'"),
        ("# version 1\n\n# none\n", "no classes"),
        ("# version 1\ndog\ncat\ndog\n", ":4: the class 'dog' occurs twice"),
        ("# version 1\ndog\ndog | hound\n", ":3: the class 'dog' occurs twice"),
        ("# version 1\ndog\n | hound\n", ":3: '' is not 'label' or 'label | words'"),
        ("# version 1\ndog |\n", ":2: 'dog' is not 'label' or 'label | words'"),
        ("# version 1\nthe sound of {}\n", ":2: 'the sound of {}' is not 'label'"),
    ],
)
def test_a_faulty_list_of_classes_is_refused(text: str, named: str, file: Path) -> None:
    file.write_text(text)
    refused(lambda: read_classes(str(file)), str(file), named)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a {}\n", ":1: the first line is not '# version N'"),
        ("# version 1\n", "no templates"),
        ("# version 1\na {}\n\na sound\n", ":4: 'a sound' has not one {}"),
        ("# version 1\n{} and {}\n", ":2: '{} and {}' has not one {}"),
        ("# version 1\na {name}\n", ":2: 'a {name}' has not one {}"),
        ("# version 1\na {}}\n", ":2: 'a {}}' has not one {}"),
        ("# version 1\na {}\nthe {}\na {}\n", ":4: the template 'a {}' occurs twice"),
    ],
)
def test_faulty_templates_are_refused(text: str, named: str, file: Path) -> None:
    file.write_text(text)
    refused(lambda: read_templates(str(file)), str(file), named)


def test_a_name_that_the_package_does_not_have_is_refused_with_those_it_has() -> None:
    refused(lambda: read_classes("esc10"), "'esc10'", "audioset, demo, esc50, vggsound")
    refused(lambda: read_templates("sounds"), "'sounds'", "name, picture, sound, video")


def test_a_file_that_is_not_text_is_refused(file: Path) -> None:
    file.write_bytes(b"# version 1\n\xff\xfe\n")
    refused(lambda: read_classes(str(file)), str(file), "not UTF-8")
    with pytest.raises(FileNotFoundError):
        read_classes(str(file.with_name("other.txt")))
