"""Every damaged store is refused by name before anything is computed from it."""

from pathlib import Path

import pytest
from training_fixtures import TinyData

from trimodal.core.config import ConfigError
from trimodal.core.records import DataError

from .store_corpus import READERS, STORES, BadStore, copied


def test_undamaged_stores_are_read(tiny_data: TinyData, tmp_path: Path) -> None:
    data = copied(tiny_data, tmp_path / "data")
    for read in READERS.values():
        assert read(data)


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.name)
def test_store_is_refused(store: BadStore, tiny_data: TinyData, tmp_path: Path) -> None:
    data = copied(tiny_data, tmp_path / "data")
    store.damage(data)
    with pytest.raises((DataError, ConfigError)) as caught:
        READERS[store.read](data)
    assert str(data.av_dir.parent) in str(caught.value)
    assert store.file in str(caught.value)
    assert store.refused in str(caught.value)
