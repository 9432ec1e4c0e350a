"""The document that ``bench.model`` writes its tables into."""

import pytest

from bench.model import DOCUMENT, TABLES, put


@pytest.mark.parametrize("name", sorted(TABLES))
def test_the_document_has_one_place_for_every_table_and_keeps_the_rest(name: str) -> None:
    before = DOCUMENT.read_text()
    after = put(before, name, "| a new table |")
    assert "| a new table |\n<!-- end -->" in after
    assert put(after, name, "") == put(before, name, "")
    assert after.splitlines()[0] == before.splitlines()[0]
    assert after.splitlines()[-1] == before.splitlines()[-1]


def test_a_table_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for weather"):
        put(DOCUMENT.read_text(), "weather", "| rain |")
