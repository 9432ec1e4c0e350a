"""An empty database for a test of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from avo.lineage_db.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """The store on ``lineage.db`` in the test's folder."""
    with Store.open(str(tmp_path / "lineage.db")) as opened:
        yield opened
