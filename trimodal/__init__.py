"""One embedding space for images, sounds and captions, learned with the image as mediator.

``from trimodal import Trimodal`` is the trained model as a tool (:mod:`trimodal.search.api`).
"""

from typing import TYPE_CHECKING, Any

from trimodal.core.runtime import keep_freed_memory, share_cores

if TYPE_CHECKING:
    from trimodal.search.api import Trimodal

__all__ = ["Trimodal"]

share_cores()
keep_freed_memory()


def __getattr__(name: str) -> Any:
    """Loads the model's class, and with it PyTorch, when it is first asked for."""
    if name == "Trimodal":
        from trimodal.search.api import Trimodal

        return Trimodal
    raise AttributeError(f"module 'trimodal' has no attribute {name!r}")
