"""Fingerprints of code: comments do not count, imported modules do."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from trimodal.core import fingerprint as module
from trimodal.core.fingerprint import code_fingerprint

# Relative to the package: a chain of imports, one of them within a function, one not imported.
SOURCES = {
    "core/a.py": '''\
"""What it does."""

from trimodal.media import b


def double(x):
    """Twice as much."""
    # by itself
    return b.same(x) + x  # added
''',
    "media/b.py": """\
import os

import trimodal.media.c as c


def same(x):
    from trimodal.core.late import shift

    return shift(c.ZERO + x, os.sep)
""",
    "media/c.py": "ZERO = 0\n",
    "core/late.py": "def shift(x, _):\n    return x\n",
    "media/apart.py": "ZERO = 1\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small package in place of this one."""
    package = tmp_path / "trimodal"
    for name, source in SOURCES.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(source)
    monkeypatch.setattr(module, "_PACKAGE", package)
    yield package
    code_fingerprint.cache_clear()


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of this package that a test may change."""
    package = tmp_path / "trimodal"
    shutil.copytree(module._PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "_PACKAGE", package)
    yield package
    code_fingerprint.cache_clear()


def current_fingerprint(*modules: str) -> str:
    """The fingerprint of the files currently on disk."""
    code_fingerprint.cache_clear()
    return code_fingerprint(*modules)


def edit(path: Path, before: str, after: str) -> None:
    source = path.read_text()
    assert before in source
    path.write_text(source.replace(before, after))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"""What it does."""\n\n', ""),
        ('"""What it does."""', '"""What\n\nit does,\n    in more lines."""'),
        ('    """Twice as much."""\n', ""),
        ("    # by itself\n", ""),
        ("  # added", "  # twice"),
        ("  # added", ""),
        ("\n\n\n", "\n\n"),
        ("\n    # by itself", "\n\n    # by itself\n"),
    ],
)
def test_comments_docstrings_and_blank_lines_do_not_count(
    before: str, after: str, package: Path
) -> None:
    first = current_fingerprint("trimodal.core.a")
    edit(package / "core/a.py", before, after)
    assert current_fingerprint("trimodal.core.a") == first


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("return b.same(x) + x", "return b.same(x) - x"),
        ("double", "twice"),
        ("return b.same(x) + x", 'return b.same(x) + x + len("#")'),
        ("    return", "    x\n    return"),
    ],
)
def test_code_counts(before: str, after: str, package: Path) -> None:
    first = current_fingerprint("trimodal.core.a")
    edit(package / "core/a.py", before, after)
    assert current_fingerprint("trimodal.core.a") != first


def test_a_string_that_is_not_a_docstring_counts(package: Path) -> None:
    path = package / "core/a.py"
    path.write_text('QUERY = """\n# one\n\n"""\n')
    first = current_fingerprint("trimodal.core.a")
    edit(path, "# one", "# two")
    assert current_fingerprint("trimodal.core.a") != first


@pytest.mark.parametrize("name", ["media/b.py", "media/c.py", "core/late.py"])
def test_imported_modules_count_also_those_imported_within_functions(
    name: str, package: Path
) -> None:
    first = current_fingerprint("trimodal.core.a")
    with (package / name).open("a") as source:
        source.write("# nothing\n")
    assert current_fingerprint("trimodal.core.a") == first
    with (package / name).open("a") as source:
        source.write("ONE = 1\n")
    assert current_fingerprint("trimodal.core.a") != first


def test_modules_that_are_not_imported_do_not_count(package: Path) -> None:
    first = current_fingerprint("trimodal.core.a")
    edit(package / "media/apart.py", "1", "2")
    assert current_fingerprint("trimodal.core.a") == first
    assert current_fingerprint("trimodal.core.a", "trimodal.media.apart") != first


def test_a_module_counts_by_its_name(package: Path) -> None:
    """The same code under another name is another module."""
    first = current_fingerprint("trimodal.media.c")
    shutil.copy(package / "media/c.py", package / "media/d.py")
    assert current_fingerprint("trimodal.media.d") != first


def test_all_modules_named_count_in_any_order(package: Path) -> None:
    names = ("trimodal.media.c", "trimodal.media.apart")
    first = current_fingerprint(*names)
    assert current_fingerprint(*names[::-1]) == first
    edit(package / "media/apart.py", "1", "2")
    assert current_fingerprint(*names) != first


# Which changes rebuild shards and models

SHARDS = ("trimodal.preprocess.clip_shards", "trimodal.preprocess.image_shards")


@pytest.mark.parametrize("room", ["losses", "training", "evaluation", "search", "report"])
@pytest.mark.parametrize("shards", SHARDS)
def test_later_rooms_do_not_rebuild_shards(shards: str, room: str, copied: Path) -> None:
    first = current_fingerprint(shards)
    for path in (copied / room).glob("*.py"):
        with path.open("a") as source:
            source.write("\nCHANGED = True\n")
    assert current_fingerprint(shards) == first


@pytest.mark.parametrize("name", ["core/progress.py", "preprocess/extract.py", "parallel/pool.py"])
@pytest.mark.parametrize("shards", SHARDS)
def test_progress_and_worker_code_does_not_rebuild_shards(
    shards: str, name: str, copied: Path
) -> None:
    first = current_fingerprint(shards)
    with (copied / name).open("a") as source:
        source.write("\nCHANGED = True\n")
    assert current_fingerprint(shards) == first


@pytest.mark.parametrize(
    ("shards", "name"),
    [
        (SHARDS[0], "preprocess/clip_shards.py"),
        (SHARDS[0], "media/video.py"),
        (SHARDS[0], "media/audio.py"),
        (SHARDS[0], "media/spectrogram.py"),
        (SHARDS[0], "core/timing.py"),
        (SHARDS[0], "core/shards.py"),
        (SHARDS[1], "preprocess/image_shards.py"),
        (SHARDS[1], "media/image.py"),
        (SHARDS[1], "core/shards.py"),
    ],
)
def test_code_that_affects_shards_rebuilds_them(shards: str, name: str, copied: Path) -> None:
    first = current_fingerprint(shards)
    with (copied / name).open("a") as source:
        source.write("\nCHANGED = True\n")
    assert current_fingerprint(shards) != first


def test_training_code_includes_the_losses_and_not_the_evaluation(copied: Path) -> None:
    train = "trimodal.training.train"
    first = current_fingerprint(train)
    with (copied / "evaluation/metrics.py").open("a") as source:
        source.write("\nCHANGED = True\n")
    assert current_fingerprint(train) == first
    with (copied / "losses/ranking.py").open("a") as source:
        source.write("\nCHANGED = True\n")
    assert current_fingerprint(train) != first
