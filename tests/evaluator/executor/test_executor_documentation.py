"""The table of operations in docs/executor.md has what the executor knows, no more and no less."""

import re
from pathlib import Path

from avo.evaluator.executor.control import KNOWN

PAGE = (Path(__file__).parents[3] / "docs/executor.md").read_text().partition("<!-- operations:")[2]


def test_every_operation_is_in_the_table_or_said_to_be_run_by_no_test():
    rows = set(re.findall(r"^\| `([\w.]+)` \|", PAGE, re.MULTILINE))
    (unseen,) = re.findall(r"^Supported, but run by none of these tests: (.*)\.$", PAGE, re.MULTILINE)
    assert rows | set(re.findall(r"`([\w.]+)`", unseen)) == KNOWN
