"""Pretrained towers of other libraries, as backbones: timm, OpenCLIP, sentence-transformers.

Each is imported only when it is named. Weights come from the library's own cache, which may
download them, or from local files; only safetensors are read, or what ``torch.load`` reads with
``weights_only``. ``definition`` of a tower is what a saved model keeps to build it again without
its weights. Here is what they share.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from trimodal.core.arguments import missing_packages
from trimodal.core.display import printable
from trimodal.core.errors import UserError
from trimodal.core.records import DataError
from trimodal.models.image_input import Channels

Definition = dict[str, Any]
TIMM, OPEN_CLIP, SENTENCE_TRANSFORMERS = "timm:", "open_clip:", "sentence_transformers:"
_PACKAGES = {
    TIMM: ("timm", "towers"),
    OPEN_CLIP: ("open_clip", "towers"),
    SENTENCE_TRANSFORMERS: ("sentence_transformers", "towers"),
}


class TowerError(UserError, RuntimeError):
    """A tower that cannot be built; the message names the key of ``model`` and the choices."""


class WeightsUnavailableError(UserError, RuntimeError):
    """Pretrained weights could not be loaded; the message names the alternatives."""


def read_safetensors(path: Path, key: str) -> dict[str, Tensor]:
    """All tensors of a .safetensors file; raises WeightsUnavailableError, naming ``key``."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise WeightsUnavailableError(
            f"{key}: {path}: not a .safetensors file that can be read: {in_a_line(error)}"
        ) from error


def load_all(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsUnavailableError(
            f"{where}: not this network's weights: {in_a_line(error)}"
        ) from error


def channels_of(values: Any) -> Channels:
    first, second, third = (float(value) for value in values)
    return first, second, third


def check_installed(prefix: str, key: str) -> None:
    package, extra = _PACKAGES[prefix]
    if missing_packages(package):
        raise TowerError(f"{key}: {prefix[:-1]} needs pip install 'trimodal[{extra}]'")


@contextmanager
def explaining_weights(key: str, name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError, ImportError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise WeightsUnavailableError(
            f"{key}: the weights of {name!r} could not be loaded ({in_a_line(error)}). Put them "
            "into the library's own cache on a machine with a network; name a local folder or "
            f".safetensors file; or set {key} to none for random ones"
        ) from error


@contextmanager
def checking_definition(library: str) -> Iterator[None]:
    """Raises DataError if the block cannot build a tower from its definition, which may be a
    stranger's.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the libraries have their own
        raise DataError(
            f"towers: not a tower of {library}: {type(error).__name__}: "
            f"{printable(in_a_line(error))}"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' logging of what they do; errors come as exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with _no_progress_bars():
            yield
    finally:
        logging.disable(before)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Without transformers' bars of loading weights, if it is installed."""
    if find_spec("transformers") is None:
        yield
        return
    from transformers.utils import logging as library

    transformers_logging: Any = library
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def in_a_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]}..."
