"""Every bad text file is refused by name, or read with its bad rows counted."""

from pathlib import Path

import pytest

from trimodal.core.config import ConfigError
from trimodal.core.records import DataError

from .text_corpus import READERS, ROWS, BadText


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_text_has_its_outcome(row: BadText, tmp_path: Path) -> None:
    name, read = READERS[row.reader]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(row.content)
    if row.refused:
        with pytest.raises((DataError, ConfigError)) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert row.refused in str(caught.value)
        return
    records, bad_rows = read(path)
    assert len(records) == row.records
    assert bad_rows == row.bad_rows
