"""What the README says of the performance model is what its page says."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = " ".join((ROOT / "README.md").read_text().split())
PAGE = (ROOT / "docs" / "performance-model.md").read_text()


def rows(table: str) -> list[list[str]]:
    """The cells of a table of the page, without its head."""
    found = re.search(rf"<!-- bench.model: {table} -->\n(.*?)<!-- end -->", PAGE, re.DOTALL)
    assert found
    lines = [line for line in found[1].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_the_readme_has_the_figures_of_the_measured_kernels() -> None:
    measured = rows("measured")
    every = measured[-1]
    b200 = [(int(row[2]), float(row[5].rstrip("%"))) for row in measured if row[1] == "b200"]
    number = sum(n for n, _ in b200)
    mean = sum(n * error for n, error in b200) / number
    assert f"{every[2]} published times" in README
    assert f"the mean error is {every[5]}," in README
    assert f"the {number} known times on B200" in README
    assert f"it is {mean:.0f}%. {every[9]} of the times lie in the predicted range" in README


def test_the_readme_has_the_errors_of_the_anchors_and_the_number_of_known_orders() -> None:
    errors = [int(row[5].rstrip("%")) for row in rows("anchors") if row[0] == "h100"]
    assert min(errors) >= 0
    assert f"lie up to {max(errors)}% above the published speeds" in README
    pairs = rows("pairs")
    assert f"For {len(pairs)} pairs of kernels it is known which one is faster" in README
    assert {row[5] for row in pairs} == {"right"}
