"""Which device, and how precisely it computes."""

from typing import Any

import pytest
import torch

from trimodal.models.devices import pick_device, pick_dtype


@pytest.mark.parametrize(
    ("wanted", "device", "supported", "expected"),
    [
        ("auto", "cpu", True, torch.float32),
        ("auto", "cuda", True, torch.bfloat16),
        ("auto", "cuda", False, torch.float32),
        ("float32", "cuda", True, torch.float32),
        ("bfloat16", "cpu", False, torch.bfloat16),
    ],
)
def test_auto_is_bfloat16_where_the_gpu_is_made_for_it(
    wanted: Any, device: str, supported: bool, expected: torch.dtype, monkeypatch: Any
) -> None:
    def answer(including_emulation: bool = True) -> bool:
        return supported or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", answer)
    assert pick_dtype(wanted, torch.device(device)) == expected


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(RuntimeError, match="no GPU"):
        pick_device("cuda")
