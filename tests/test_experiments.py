"""Experiments are run by DVC, and their results read back from its cache by their names."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from comparison_fixtures import run as fake_run
from experiment_fixtures import PARAMS, STAGES, TABLE1, fake_project, sh
from repository import ROOT

from trimodal.report import dvc_command, experiments
from trimodal.report.dvc_command import ExperimentError, alone, ask_dvc, clear_leftovers
from trimodal.report.experiments import compare_revisions, result_files, run_at, run_series
from trimodal.report.significance import PairingError

TABLE = Path("experiments/table1.yaml")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a quick pipeline on untracked sources, evaluated and committed."""
    project = fake_project(tmp_path, monkeypatch)
    sh("dvc", "repro", "-q")
    sh("git", "add", "-A")
    sh("git", "commit", "-q", "-m", "run")
    return project


@pytest.mark.nightly
def test_the_papers_comparison_is_run_and_read_back(project: Path) -> None:
    text = run_series(TABLE, [2, 1])
    assert "| VM-ranking loss, image + audio |" in text
    logs = [path.read_text() for path in (project / ".dvc/tmp/trimodal").glob("table1-*.log")]
    assert len(logs) == 4
    assert all("Stage 'captions' didn't change" in log for log in logs)
    comparison = json.loads((project / "metrics/comparison.json").read_text())
    assert comparison["seeds"] == [1, 2]
    assert comparison["queries"] == {"image": 200, "image_audio": 200}
    assert comparison["data"] == "inside beside"
    # The commit's own run is the experiment of fixed margin and seed 1.
    for revision in ("HEAD", "workspace"):
        assert (run_at(revision).ranks["image"] == run_at("table1-fixed-s1").ranks["image"]).all()
    table = compare_revisions("table1-fixed-s1", "table1-variable-s1")
    assert "| search | metric | table1-fixed-s1 | table1-variable-s1 | difference |" in table
    one, other = (run_at(f"table1-fixed-s{seed}").ranks["image"] for seed in (1, 2))
    assert (one != other).any()


@pytest.fixture
def dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """A DVC that does nothing but remember its commands; experiments with seed 13 fail."""
    monkeypatch.chdir(tmp_path)
    Path(".dvc").mkdir()
    for path, text in {"params.yaml": PARAMS, "dvc.yaml": STAGES, str(TABLE): TABLE1}.items():
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(text)
    commands: list[tuple[str, ...]] = []
    done = ["table1-fixed-s1", "table1-variable-s13"]

    def ask(*words: str) -> str:
        commands.append(words)
        if words[0] == "status":
            return json.dumps({"links": [], "captions": [], "evaluate": []})
        if words[:2] == ("exp", "remove"):
            done.remove(words[2])
        return "\n".join(done)

    def run(log_file: Path, *words: str) -> int:
        commands.append(words)
        name = words[words.index("--name") + 1]
        log_file.write_text(f"> train\nno \x1b[2J memory for {name}\n\n")
        if name.endswith("s13"):
            return 1 if "fixed" in name else -9
        done.append(name)
        return 0

    monkeypatch.setattr(experiments, "ask_dvc", ask)
    monkeypatch.setattr(experiments, "run_dvc", run)
    monkeypatch.setattr(experiments, "clear_leftovers", lambda _: commands.append(("clear",)))
    monkeypatch.setattr(experiments, "clock", lambda _: "00:00")
    monkeypatch.setattr(experiments, "run_at", lambda name, _: fake_run(name, 1))
    return commands


def test_experiments_that_failed_are_named_after_all_have_run(
    dvc: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExperimentError) as caught:
        run_series(TABLE, [13, 1])
    assert str(caught.value) == (
        "experiments failed: table1-fixed-s13 failed: no \x1b[2J memory for table1-fixed-s13; "
        "table1-variable-s13 was killed by signal 9; see .dvc/tmp/trimodal/NAME.log"
    )
    runs = [words for words in dvc if words[:2] == ("exp", "run")]
    names = [words[words.index("--name") + 1] for words in runs]
    assert names == [f"table1-{mode}-s{seed}" for seed in (1, 13) for mode in ("fixed", "variable")]
    assert all("--temp" in words and "--queue" not in words for words in runs)
    assert ("exp", "remove", "table1-fixed-s1") in dvc
    assert ("exp", "remove", "table1-variable-s1") not in dvc
    assert dvc[0] == dvc[-1] == ("clear",)
    lines = capsys.readouterr().out.splitlines()
    assert lines.pop(0).startswith(
        "captions: out of date, and each experiment will run them anew; to"
    )
    assert lines[0] == (
        "1 of 4: table1-fixed-s1 begins; its output: .dvc/tmp/trimodal/table1-fixed-s1.log"
    )
    assert lines[1] == "1 of 4: table1-fixed-s1 is done; 00:00 since the start"
    assert lines[5] == (
        r"3 of 4: table1-fixed-s13 failed: no \x1b[2J memory for table1-fixed-s13; "
        "00:00 since the start"
    )
    assert len(lines) == 8


def test_an_experiment_gets_its_variants_values_and_seed(dvc: list[tuple[str, ...]]) -> None:
    with pytest.raises(ExperimentError):
        run_series(TABLE, [13, 1])
    runs = [words for words in dvc if words[:2] == ("exp", "run")]
    set_params = [
        [words[place + 1] for place, word in enumerate(words) if word == "--set-param"]
        for words in runs
    ]
    assert set_params == [
        [f'loss.margin_mode="{mode}"', f"train.seed={seed}"]
        for seed in (1, 13) for mode in ("fixed", "variable")
    ]  # fmt: skip


def test_scores_that_there_are_not_are_known_after_one_experiment(
    dvc: list[tuple[str, ...]],
) -> None:
    TABLE.write_text(TABLE1.replace("image_audio:", "sound:"))
    with pytest.raises(ExperimentError, match=r"no score 'sound' \(known: image, image_audio\)"):
        run_series(TABLE, [1, 2])
    assert len([words for words in dvc if words[:2] == ("exp", "run")]) == 1
    assert dvc[-1] == ("clear",)


def test_one_of_two_runs_at_a_time_is_refused(dvc: list[tuple[str, ...]]) -> None:
    with alone(), pytest.raises(ExperimentError, match="runs already in this repository"):
        run_series(TABLE, [1, 2])
    assert dvc == []


@pytest.mark.parametrize(
    ("seeds", "problem"),
    [
        ([1, 2, 1], "seeds 1 2 1: one of them is given twice"),
        ([1, -2], "seed -2: not from 0"),
        ([1, 2**32], "seed 4294967296: not from 0"),
    ],
)
def test_seeds_are_checked_before_anything_runs(
    seeds: list[int], problem: str, dvc: list[tuple[str, ...]]
) -> None:
    with pytest.raises(PairingError, match=problem):
        run_series(TABLE, seeds)
    assert dvc == []


def test_a_result_that_cannot_be_written_is_known_before_anything_runs(
    dvc: list[tuple[str, ...]],
) -> None:
    Path("metrics/comparison.json").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match=r"metrics/comparison\.json"):
        run_series(TABLE, [1, 2])
    assert dvc == []


# A DVC that starts a process of its own, which says where it is and waits for ever.
FAKE = """
import subprocess, sys
sys.path.insert(0, {tests!r})
from trimodal.report import dvc_command, experiments
from pathlib import Path
real = subprocess.run
def run(command, **options):
    if command[1:3] != ["-m", "dvc"]:
        return real(command, **options)
    inner = "import os, time; open('inner', 'w').write(str(os.getpid())); time.sleep(600)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {{inner!r}}])"
    return real([sys.executable, "-c", outer], **options)
experiments._experiment_names = lambda: set()
experiments._stale_stages = lambda: []
experiments.clear_leftovers = lambda _: None
subprocess.run = run
experiments.run_series(Path("experiments/table1.yaml"), [1, 2])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_that_was_started(number: int, tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "experiments").mkdir()
    for path, text in {"params.yaml": PARAMS, "dvc.yaml": STAGES, str(TABLE): TABLE1}.items():
        (tmp_path / path).write_text(text)
    code = FAKE.format(tests=str(ROOT / "tests"))
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        inner = until(lambda: read_number(tmp_path / "inner"))
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert not psutil.pid_exists(inner)
    assert out.startswith("1 of 4: table1-fixed-s1 begins")
    assert err == f"trimodal: ended by {signal.strsignal(number)}; run it again to go on\n"


def read_number(path: Path) -> int:
    return int(path.read_text() or 0) if path.exists() else 0


def until(look: Callable[[], int], seconds: float = 60) -> int:
    """What ``look`` finds, as soon as it is not 0."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def test_what_a_killed_run_left_is_cleared_and_nothing_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders with their processes; those of other names stay."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dvc_command, "_clear_dvc", lambda _: None)
    standalone = tmp_path / ".dvc/tmp/exps/standalone"
    workers = {}
    for name in ("table1-fixed-s1", "table10-fixed-s1", "mine", None, "cut"):
        folder, info = standalone / f"tmp{name}", standalone / f"run/{name}/{name}.run"
        for path in (folder, info.parent):
            path.mkdir(parents=True)
        content = json.dumps({"name": name, "root_dir": str(folder)})
        info.write_text(content[:20] if name == "cut" else content)
        workers[name] = subprocess.Popen(["sleep", "600"], cwd=folder, start_new_session=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    info = standalone / "run/x/x.run"
    info.parent.mkdir()
    info.write_text(json.dumps({"name": "table1-fixed-s2", "root_dir": str(outside)}))
    try:
        clear_leftovers(re.compile(r"table1-(fixed|variable)-s\d+"))
        workers["table1-fixed-s1"].wait(10)
        assert [name for name, worker in workers.items() if worker.poll() is not None] == [
            "table1-fixed-s1"
        ]
        assert not (standalone / "tmptable1-fixed-s1").exists()
        assert not (standalone / "run/table1-fixed-s1").exists()
        assert len(list(standalone.glob("tmp*"))) == 4
        assert outside.exists()
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()


@pytest.mark.nightly
def test_tasks_and_runs_that_died_are_cleared_and_the_comparison_goes_on(project: Path) -> None:
    """What a power cut leaves: tasks in DVC's queue that no worker has, and an experiment's folder
    with the processes of a run that was killed alone.
    """
    for name in ("table1-fixed-s1", "table1-variable-s1", "another"):
        sh("dvc", "exp", "run", "--queue", "--name", name, "-S", "train.seed=1")
    queue = project / ".dvc/tmp/exps/celery/broker"
    taken = min((queue / "in").iterdir())  # a worker had it when the power went
    taken.rename(queue / "processed" / taken.name)
    script = (project / "evaluate.py").read_text()
    (project / "evaluate.py").write_text("import time; time.sleep(600)\n" + script)
    command = ["-m", "trimodal", "experiments", "table1", "--seeds", "1,2"]
    standalone = project / ".dvc/tmp/exps/standalone"

    def orphan() -> int:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if standalone in Path(process.cwd()).parents and "evaluate.py" in process.cmdline():
                    return process.pid
        return 0

    with subprocess.Popen([sys.executable, *command], start_new_session=True) as process:
        try:
            left = until(orphan)
        finally:
            process.kill()
    assert orphan() == left
    assert list(standalone.glob("tmp*"))
    (project / "evaluate.py").write_text(script)
    text = run_series(TABLE, [1, 2])
    assert "| VM-ranking loss, image + audio |" in text
    assert not orphan()
    assert not list(standalone.glob("tmp*"))
    status = subprocess.run(
        ["dvc", "queue", "status"], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    assert "another" in status
    assert "table1" not in status
    refs = subprocess.run(["git", "for-each-ref"], capture_output=True, text=True, check=True)
    assert "refs/exps/stash" not in refs.stdout


def test_results_are_read_at_a_revision_and_what_is_missing_is_named(project: Path) -> None:
    """Also to a command that DVC refuses."""
    assert (run_at("HEAD").ranks["image"] == run_at("workspace").ranks["image"]).all()
    with pytest.raises(ExperimentError, match=r"nowhere: no data/evaluation/msrvtt/ranks\.parquet"):
        run_at("nowhere")
    (project / "data/evaluation/msrvtt/ranks.parquet").unlink()
    with pytest.raises(FileNotFoundError):
        run_at("workspace")
    with pytest.raises(ExperimentError, match="dvc exp remove nothing failed"):
        ask_dvc("exp", "remove", "nothing")


def test_the_default_test_set_is_one_that_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sets = "{s: {kind: zero_shot}, p: {kind: localisation}, t: {kind: text_image}}"
    Path("params.yaml").write_text(f"evaluate: {{sets: {sets}}}\n")
    assert result_files(None)[0] == "data/evaluation/t/ranks.parquet"
    assert result_files("s")[0] == "data/evaluation/s/ranks.parquet"
    Path("params.yaml").write_text("evaluate: {sets: {s: {kind: zero_shot}}}\n")
    with pytest.raises(
        ExperimentError, match=r"params\.yaml: evaluate\.sets has no set that ranks"
    ):
        result_files(None)
