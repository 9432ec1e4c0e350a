"""The workflow runs what ``make`` has, on a machine with what CI installs, and issues have forms that GitHub takes."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"


def test_the_workflow_makes_all_that_ci_makes() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (job,) = yaml.safe_load((GITHUB / "workflows/tests.yml").read_text())["jobs"].values()
    commands = "\n".join(step["run"] for step in job["steps"] if "run" in step)
    made = {target for target in job["strategy"]["matrix"]["target"] if f"\n{target}:" in makefile}
    (all_of_ci,) = re.findall(r"^test-all: (.*)$", makefile, re.MULTILINE)
    assert made == {*all_of_ci.split(), "test-versions"}
    assert "make ${{ matrix.target }}" in commands
    wanted = set(re.findall(r"wanted\+=\(([\w-]+)\)", (ROOT / ".ci/run").read_text()))
    assert wanted - {"chromium", "chromium-driver"} <= set(commands.split())


def test_forms_of_issues_have_what_github_asks_for() -> None:
    forms = {path.stem: yaml.safe_load(path.read_text()) for path in GITHUB.glob("ISSUE_TEMPLATE/*.yml")}
    assert forms.keys() == {"bug", "measurement", "verdict"}
    for form in forms.values():
        assert {"name", "description", "body"} <= form.keys()
        assert all(field["attributes"]["label"] for field in form["body"])
        assert len({field["id"] for field in form["body"]}) == len(form["body"])
