"""What comes from files and archives reaches terminals and logs escaped."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from trimodal.cli import main
from trimodal.core.console import show
from trimodal.core.display import printable
from trimodal.core.errors import UserError
from trimodal.core.progress import bar, counter, log, stage, start_logging

ROOT = Path(__file__).parents[1]
# ANSI (7 and 8 bit), a bell, an overwritten line, bidi controls and marks, invisible characters, a
# line separator, an undecodable byte of a file name.
NAME = "a\x1b[2Jb\x9b31mc\x07d\re\u202ef\u2066g\u200fh\u200bi\u2028j\udcffk"
ESCAPED = (
    r"a\x1b[2Jb\x9b31mc\x07d\re\u202ef\u2066g\u200fh\u200bi\u2028j\udcffk"
)  # fmt: skip


def test_unprintable_characters_are_escaped_and_others_kept() -> None:
    assert printable(NAME) == ESCAPED
    assert printable("a\nb\tc") == r"a\nb\tc"
    assert printable("Grüße, 日本語, عربي, ± 🎵") == "Grüße, 日本語, عربي, ± 🎵"


def test_lines_that_are_shown_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    show(f"first\n{NAME}")
    show(NAME, error=True)
    assert capsys.readouterr() == (f"first\n{ESCAPED}\n", f"{ESCAPED}\n")


def test_log_lines_and_errors_of_a_stage_are_escaped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "propagate", False)  # xdist cannot report a surrogate

    def work() -> None:
        with stage("extract"):
            log.info(f"left out {NAME}")
            log.info("%s as an argument", NAME)
            raise UserError(f"{NAME}: damaged")

    with pytest.raises(SystemExit) as ended:
        work()
    assert ended.value.code == f"extract: {ESCAPED}: damaged"
    assert capsys.readouterr().out == f"left out {ESCAPED}\n{ESCAPED} as an argument\n"


@pytest.mark.parametrize("error", [UserError(NAME), OSError(2, NAME, NAME)])
def test_errors_of_commands_are_escaped(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("trimodal.overlay.apply_overlay", fail)
    monkeypatch.setattr("sys.argv", ["trimodal", "scale", "paper"])
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr().err
    assert ESCAPED in told
    assert told.count("\n") == 1
    assert told.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    "starts", ["with stage('x'):", "sys.argv[1:] = ['scale', 'paper']; main()"]
)
def test_tracebacks_are_escaped(starts: str) -> None:
    """Those of bugs, whose messages may hold anything."""
    code = (
        "import sys, trimodal.overlay\nfrom trimodal.cli import main\n"
        "from trimodal.core.progress import stage\n"
        "def fail(*_): raise RuntimeError('\\x1b[2J\\u202e')\n"
        "trimodal.overlay.apply_overlay = fail\n"
    ) + (f"{starts}\n  fail()" if starts.endswith(":") else starts)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert done.stderr.endswith("RuntimeError: \\x1b[2J\\u202e\n")


@pytest.mark.parametrize("module", ["ipykernel.zmqshell", "some.other"])
def test_a_notebook_shows_bars_without_a_terminal(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, ModuleType(module))
    assert list(bar([1, 2], task="embedding", unit="files")) == [1, 2]
    assert ("embedding" in capsys.readouterr().err) == (module == "ipykernel.zmqshell")


def test_names_in_progress_bars_are_escaped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for made in (bar([], task=NAME, unit="files"), counter(task=NAME, unit="files", total=1)):
        made.close()
    shown = capsys.readouterr().err
    assert shown.count(ESCAPED) >= 2
    assert "\x1b[2J" not in shown


def test_logging_may_start_twice(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging()
    start_logging()
    log.info("once")
    assert capsys.readouterr().out == "once\n"
