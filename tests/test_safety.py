"""What the code may not do at all: unpickle, run shells or text, wait for a command for ever,
unpack archives, read XML. Read from the syntax tree, so that no comment can silence it.
"""

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from unsafe_code import judged, problems

ROOT = Path(__file__).parents[1]
ROOMS = ("trimodal", "pipeline", "benchmarks", "experiments")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_code_does_nothing_unsafe(path: Path) -> None:
    assert problems(path.read_text(encoding="utf-8")) == []


def test_the_walk_sees_the_uses_that_there_are() -> None:
    """Otherwise it might pass for having seen nothing."""

    def uses(name: str) -> Iterator[str]:
        return (use.what for use in judged((ROOT / name).read_text()))

    assert list(uses("trimodal/media/container.py")) == ["subprocess.run"]
    assert list(uses("trimodal/core/fingerprint.py")) == ["subprocess.run"]
    assert list(uses("benchmarks/startup.py")) == ["subprocess.run"]
    assert list(uses("trimodal/overlay.py")) == ["yaml.load"]
    assert list(uses("trimodal/features/store.py")) == ["numpy.load"]
    assert list(uses("trimodal/preprocess/clip_shards.py")) == ["numpy.save"]
    assert sum(1 for _ in uses("trimodal/models/backbones.py")) == 2
    assert len(SOURCES) > 70


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import subprocess\nsubprocess.run('ls', timeout=1)", "not a list"),
        ("import subprocess\nsubprocess.run(f'ls {x}', timeout=1)", "not a list"),
        ("import subprocess\nsubprocess.run(command, timeout=1)", "not a list"),
        ("import subprocess\nc = 'ls'\nsubprocess.run(c, timeout=1)", "not a list"),
        ("import subprocess\nc = ['ls']\nc = 'ls'\nsubprocess.run(c, timeout=1)", "not a list"),
        ("import subprocess\nsubprocess.run(args='ls', timeout=1)", "not a list"),
        ("import subprocess\nsubprocess.run(['ls', '-l'])", "no time limit"),
        ("import subprocess\nsubprocess.run(['ls'], timeout=None)", "no time limit"),
        ("import subprocess\nsubprocess.run(['ls'], shell=True, timeout=1)", "names a shell"),
        ("import subprocess\nsubprocess.run(['-c'], executable='sh', timeout=1)", "names a shell"),
        ("import subprocess\nsubprocess.run(['ls'], **given)", "cannot be seen"),
        ("import subprocess\nsubprocess.run(*given, timeout=1)", "cannot be seen"),
        ("import subprocess as s\ns.check_output(['ls'])", "no time limit"),
        ("import subprocess\nsubprocess.check_call(['ls'])", "no time limit"),
        ("from subprocess import call as c\nc(['ls'])", "no time limit"),
        ("from subprocess import run\nstart = run", "not called where"),
        ("import subprocess\nlist(map(subprocess.run, commands))", "not called where"),
        (
            "import subprocess\nfrom functools import partial\npartial(subprocess.run, ['ls'])",
            "no time",
        ),
        ("import subprocess\nsubprocess.Popen(['ls'])", "subprocess.Popen: is not used"),
        ("from subprocess import Popen\n", "subprocess.Popen: is not used"),
        ("import subprocess\nsubprocess.getoutput('ls')", "is not used"),
        ("from subprocess import *\nrun('ls')", "hides"),
        ("import subprocess\ngetattr(subprocess, 'run')('ls')", "handed on"),
        ("import os\nos.system('ls')", "os.system: is not used"),
        ("from os import system\nsystem('ls')", "os.system: is not used"),
        ("import os\nos.popen('ls')", "is not used"),
        ("import os\nos.execv('/bin/ls', [])", "is not used"),
        ("import os\nos.spawnlp(os.P_WAIT, 'ls')", "is not used"),
        ("import os\ngetattr(os, 'system')('ls')", "handed on"),
        ("import asyncio\nasyncio.create_subprocess_shell('ls')", "is not used"),
        ("import pickle", "not imported"),
        ("def f():\n    import pickle as p", "not imported"),
        ("from pickle import loads", "not imported"),
        ("from pickle import UnpicklingError, load", "pickle.load: is not imported"),
        ("import joblib", "not imported"),
        ("import dill, json", "not imported"),
        ("import shelve", "not imported"),
        ("import marshal", "not imported"),
        ("from cloudpickle import load", "not imported"),
        ("import xml.etree.ElementTree as E", "not imported"),
        ("from lxml import etree", "not imported"),
        ("import torch\ntorch.load(path)", "needs weights_only=True"),
        ("import torch\ntorch.load(path, weights_only=False)", "needs weights_only=True"),
        ("import torch\ntorch.load(path, weights_only=flag)", "needs weights_only=True"),
        ("from torch import load\nload(path)", "needs weights_only=True"),
        ("from torch import load\nread = load", "not called where"),
        ("import torch\ntorch.hub.load('owner/name', 'net')", "torch.hub.load: may"),
        ("weights.get_state_dict(check_hash=True)", "needs weights_only=True"),
        ("import numpy as np\nnp.load(path)", "needs allow_pickle=False"),
        ("import numpy as np\nnp.load(path, allow_pickle=True)", "needs allow_pickle=False"),
        ("import numpy as np\nnp.save(path, array)", "needs allow_pickle=False"),
        ("from gensim.models import KeyedVectors\nKeyedVectors.load(path)", "may unpickle"),
        ("model().load(path)", "may unpickle"),
        ("frames.read_pickle(path)", "is not used"),
        ("import yaml\nyaml.load(text, yaml.UnsafeLoader)", "yaml.load"),
        ("import yaml\nyaml.unsafe_load(text)", "yaml.unsafe_load"),
        ("from ruamel.yaml import YAML\nYAML(typ='unsafe')", "round-trip"),
        ("from ruamel.yaml import YAML\nYAML(**given)", "round-trip"),
        ("from ruamel.yaml import YAML\ny = YAML()\ny = other\ny.load(path)", "may unpickle"),
        ("eval('1')", "eval: is not used"),
        ("exec(text)", "exec: is not used"),
        ("run = exec", "exec: is not used"),
        ("__import__('os')", "__import__"),
        ("import builtins\nbuiltins.eval('1')", "is not used"),
        ("import importlib\nimportlib.import_module(name)", "is not used"),
        ("import tarfile\ntarfile.open(path).extractall()", "extractall"),
        ("import tarfile\ntar = tarfile.open(path)\ntar.extract(member)", "unpacks"),
        ("with zipfile.ZipFile(path) as z:\n    z.extractall(folder)", "extractall"),
        ("unpack = archive.extractall", "extractall"),
        (
            "def f(c):\n    run(c)\nc = ['ls']\nfrom subprocess import run\nrun(c, timeout=1)",
            "a list",
        ),
        ("import subprocess\nfor c in x:\n    subprocess.run(c, timeout=1)", "not a list"),
        ("import shutil\nshutil.unpack_archive(path)", "is not used"),
        ("import tempfile\ntempfile.mktemp()", "is not used"),
    ],
)
def test_the_walk_sees_what_is_bad(source: str, problem: str) -> None:
    assert any(problem in said for said in problems(source)), judged(source)


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess\nsubprocess.run(['ls', *names], timeout=limit)",
        "import subprocess\ncommand = ['ls']\nsubprocess.run(command + ['-l'], timeout=1)",
        """
        import subprocess
        import ffmpeg
        command = ffmpeg.compile(stream)
        subprocess.run(command, timeout=1)
        """,
        "import numpy as np\nnp.load(path, mmap_mode='r', allow_pickle=False)",
        "import torch\ntorch.load(path, weights_only=True)",
        "import json\njson.loads(text)",
        "import yaml\nyaml.safe_load(text)",
        "from ruamel.yaml import YAML\nyaml = YAML()\nyaml.load(path)",
        "from pickle import UnpicklingError",
        "import tarfile\ntarfile.open(path).extractfile(member)",
        "import os\nos._exit(1)",
        "import re\nre.compile('a')",
        "network.eval()",
    ],
)  # fmt: skip
def test_the_walk_lets_pass_what_is_good(source: str) -> None:
    assert problems(dedent(source)) == []
