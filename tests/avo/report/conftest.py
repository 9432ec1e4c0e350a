"""A database for each test, and one with a sample run for all of them."""

import pytest

from avo.lineage_db.store import Store
from avo.report.data import Report
from avo.report.reading import read_report
from tests.avo.sample_run import START, make_sample_run


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report on the run mha-h100: 8 attempts, 4 versions."""
    url = str(tmp_path_factory.mktemp("report") / "lineage.db")
    name = make_sample_run(url)
    with Store.open(url, create=False) as store:
        return read_report(store, name, START)
