"""Every error that a user may see derives from UserError, which commands show as one line."""

import inspect
import pkgutil
from importlib import import_module

import pytest

import trimodal
from trimodal.cli import main
from trimodal.core.errors import UserError

# Always caught inside: counted as a bad row or an item left out, noted as a clip's outcome, turned
# into a FetchError.
INTERNAL = {
    "trimodal.sources.rows.BadRowError",
    "trimodal.download.youtube.FetchError",
    "trimodal.media.container.SectionError",
    "trimodal.evaluation.caption_sets.UnusableFileError",
    "trimodal.evaluation.localisation_items.LeftOutError",
}


def error_classes() -> dict[str, type[Exception]]:
    """The exception classes of this package by their full names."""
    found = {}
    for info in pkgutil.walk_packages(trimodal.__path__, "trimodal."):
        module = import_module(info.name)
        found |= {
            f"{info.name}.{name}": cls
            for name, cls in inspect.getmembers(module, inspect.isclass)
            if issubclass(cls, Exception) and cls.__module__ == info.name
        }
    return found


ERRORS = {name: cls for name, cls in error_classes().items() if name.endswith("Error")}


def test_the_walk_finds_the_known_ones() -> None:
    assert {
        "trimodal.core.config.ConfigError",
        "trimodal.core.records.DataError",
        "trimodal.parallel.pool.WorkerError",
        "trimodal.models.devices.DeviceError",
        "trimodal.search.store_errors.NoStoreError",
    } <= ERRORS.keys()
    assert ERRORS.keys() >= INTERNAL


@pytest.mark.parametrize("name", ERRORS)
def test_errors_derive_from_the_one_that_commands_show(name: str) -> None:
    assert issubclass(ERRORS[name], UserError) == (name not in INTERNAL)


def test_exceptions_of_other_names_are_warnings() -> None:
    others = [cls for name, cls in error_classes().items() if name not in ERRORS]
    assert all(issubclass(cls, Warning) for cls in others)


@pytest.mark.parametrize("cls", [UserError, OSError, ValueError, RuntimeError])
def test_commands_show_user_errors_in_a_line_and_bugs_with_a_traceback(
    cls: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise cls("something")

    monkeypatch.setattr("trimodal.overlay.apply_overlay", fail)
    monkeypatch.setattr("sys.argv", ["trimodal", "scale", "paper"])
    shown = cls in (UserError, OSError)
    with pytest.raises(SystemExit if shown else cls):
        main()
    assert capsys.readouterr().err == ("trimodal: something\n" if shown else "")


def test_a_command_whose_sockets_have_too_long_a_path_names_tmpdir(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr("trimodal.overlay.apply_overlay", fail)
    monkeypatch.setattr("sys.argv", ["trimodal", "scale", "paper"])
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr().err
    assert "AF_UNIX path too long; set TMPDIR, now " in told
    assert told.endswith("and run it again\n")
