"""Sections of params for tests: the committed ones, changed where a test needs it."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from trimodal.core.config import load_section
from trimodal.core.machine import MachineConfig
from trimodal.media.mel import MelConfig
from trimodal.media.windows import AudioFrontEnd, WindowConfig
from trimodal.params import SECTIONS

PARAMS = Path(__file__).parents[1] / "params.yaml"
_NAMES = {cls: name for name, cls in SECTIONS.items()}

Section = TypeVar("Section")


def config_for_tests(cls: type[Section], **changes: Any) -> Section:
    """A section of the committed params.yaml with these changes."""
    return replace(_committed(cls), **changes)  # type: ignore[type-var]


@cache
def _committed(cls: type[Any]) -> Any:
    return load_section(PARAMS, _NAMES[cls], cls)


def front_end_for_tests(decibel: str = "power", **mel: Any) -> AudioFrontEnd:
    """Sections mel and window with these changes."""
    return AudioFrontEnd(
        mel=config_for_tests(MelConfig, **mel),
        window=config_for_tests(WindowConfig, decibel=decibel),
    )


# One process, no loaders, the CPU.
MACHINE = config_for_tests(MachineConfig, workers=1, device="cpu", devices=1, loader_workers=0)
