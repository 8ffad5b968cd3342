"""The targets of the fuzz run: their seeds are read, nonsense is refused by name, and a reader that
raises anything else is found.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from .targets import TARGETS, execute


@pytest.mark.nightly
@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_read_and_nonsense_is_refused(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    (seeding := tmp_path / "seeding").mkdir()
    (place := tmp_path / "place").mkdir()
    target.prepare(place)
    for seed in target.seeds(seeding):
        assert execute(target, place, seed)
    for content in (b"\xff\xfe", b"[" * 3000, b"{" * 3000 + b"\n"):
        assert not execute(target, place, content)


def test_error_that_is_not_clear_or_names_no_file_is_found(tmp_path: Path) -> None:
    def fail(error: Exception) -> None:
        raise error

    target = TARGETS["vggsound_csv"]
    with pytest.raises(KeyError):
        execute(replace(target, read=lambda _: fail(KeyError("x"))), tmp_path, b"")
    with pytest.raises(AssertionError, match="name the file"):
        execute(replace(target, read=lambda _: fail(target.clear[0]("x"))), tmp_path, b"")
