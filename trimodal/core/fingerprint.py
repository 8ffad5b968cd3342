"""Short hashes that identify content: values, files, and the code that made them."""

import ast
import hashlib
import io
import json
import shutil
import subprocess
import tokenize
from functools import cache
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parents[1]


def sha256_of(*parts: bytes | memoryview) -> str:
    """Hex digest of the parts, each length-prefixed so that their boundaries count."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def fingerprint(content: Any) -> str:
    """16 hex digits that identify a value that JSON can hold."""
    return sha256_of(json.dumps(content, sort_keys=True).encode())[:16]


def bytes_fingerprint(content: bytes) -> str:
    """:func:`file_fingerprint` of a file with this content."""
    return hashlib.sha256(content).hexdigest()[:16]


def file_fingerprint(path: Path) -> str:
    """16 hex digits that identify a file's content."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


@cache
def code_fingerprint(*modules: str) -> str:
    """16 hex digits that identify the code of modules of this package ('trimodal.media.mel') and of
    all modules of this package that they import. Comments, docstrings and blank lines do not count.
    """
    seen: set[Path] = set()
    waiting = [_source(module) for module in modules]
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += _imports(path)
    named = sorted((path.relative_to(_PACKAGE).as_posix(), path) for path in seen)
    parts = (part.encode() for name, path in named for part in (name, _code(path)))
    return sha256_of(*parts)[:16]


def _source(module: str) -> Path:
    return _PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")


def _imports(path: Path) -> list[Path]:
    """The modules of this package that a file imports, also within functions."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    ours = (_source(name) for name in names if name.startswith(f"{_PACKAGE.name}."))
    return [source for source in ours if source.is_file()]


def _code(path: Path) -> str:
    """A file's lines without comments and docstrings: the same in every version of Python."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                for row in range(first.lineno - 1, first.end_lineno or first.lineno):
                    lines[row] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())


def git_revision() -> str:
    """The commit of the working directory, with '-dirty' appended if there are uncommitted
    changes; empty outside a repository.
    """
    if shutil.which("git") is None:
        return ""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],  # noqa: S607
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.strip()
