"""Documents that scripts write their tables into."""

from pathlib import Path

import pytest

from bench import escapes, gluon, model, tutorials
from bench.tables import put

PLACES = [
    (module.DOCUMENT, f"{module.__name__}: {name}")
    for module in (model, escapes, gluon)
    for name in sorted(module.TABLES)
]
PLACES.append((tutorials.DOCUMENT, tutorials.PLACE))


@pytest.mark.parametrize(("document", "name"), PLACES)
def test_the_document_has_one_place_for_every_table_and_keeps_the_rest(document: Path, name: str) -> None:
    before = document.read_text()
    after = put(before, name, "| a new table |")
    assert "| a new table |\n<!-- end -->" in after
    assert put(after, name, "") == put(before, name, "")
    assert after.splitlines()[0] == before.splitlines()[0]
    assert after.splitlines()[-1] == before.splitlines()[-1]


def test_a_table_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for weather"):
        put(model.DOCUMENT.read_text(), "weather", "| rain |")
