"""The limits of a run: each ends it, and is named by every display and where a larger one is needed."""

from dataclasses import replace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from avo.agents.model import Usage
from avo.agents.operator import Brief, Proposal
from avo.cli.main import app
from avo.cli.session import in_words, summarise
from avo.config import RunConfig
from avo.evaluator.fake import FakeEvaluator
from avo.limits import RUN_LIMITS, Limit
from avo.lineage_db.ending import Cause, Ending
from avo.lineage_db.records import RunState
from avo.report.reading import read_report
from avo.report.render import to_markdown
from avo.tui.workers import workers
from avo.watch.events import EventReader
from avo.watch.panel import Budget, panel
from avo.watch.view import read_view, to_json
from tests.avo.fakes import NOW, InlineCrew, Scripted, judge, submit
from tests.avo.search.test_run import Office, office

__all__ = ["office"]

REACHED = {
    "max_attempts": (4, "made 4 of 4 attempts", "4 of 4 ", "0 attempts"),
    "max_steps": (3, "made 3 of 3 steps", "3 of 3 steps", "0 steps"),
    "max_versions": (4, "accepted 4 of 4 versions", "4 of 4 versions", "0 versions"),
    "max_tokens": (2500, "used 3000 of 2500 tokens", "3.0k of 2.5k tokens", "0 tokens"),
    "max_usd": (1.25, "used 1.5000 of 1.25 USD", "1.50 of 1.25 USD", "0.00 USD"),
}
"""By setting: a limit that is reached in the third step, as messages and the panel say it, and what is left then."""


def think(brief: Brief) -> Proposal:
    """Ask a model for a faster version."""
    brief.desk.charge(model="m", usage=Usage(600, 0, 400), usd=0.5, seconds=1.0, error="")
    return Proposal(submit(brief, f"tflops = {100.0 + 10 * len(brief.versions)}"), "faster")


@pytest.mark.parametrize("limit", RUN_LIMITS, ids=lambda limit: limit.setting)
def test_a_run_ends_at_each_of_its_limits_and_every_display_and_message_names_it(office: Office, limit: Limit) -> None:
    most, reached, shown, left = REACHED[limit.setting]
    config = RunConfig(workers=1, **{limit.setting: most})
    crew = InlineCrew(office.store, office.run, Scripted(think), FakeEvaluator(judge))
    office.session(crew, config, None, office.tick).drive()
    assert crew.begun == 4, "the seed's step is the first"

    view = read_view(office.store, "fake", NOW)
    assert view.run.ended_by == Ending(Cause.LIMIT, f"has {reached}", limit.setting, enough=view.run.ended_by.enough)
    command = view.run.ended_by.goes_on("fake")
    option = f"--{limit.setting.replace('_', '-')}"
    assert command.startswith(f"avo resume fake {option} ")
    why = f"it has {reached}; continue with: {command}"
    data = to_json(view, NOW)
    assert (data["ended_by"]["limit"], data["goes_on"]) == (limit.setting, command)
    (*_, event) = EventReader("fake").read(office.store, NOW)
    assert event.text == f"run fake: finished; {why}"
    assert (event.data["ended_by"], event.data["goes_on"]) == (data["ended_by"], command)
    summary = summarise(office.store, "fake")
    assert (summary["ended_by"], summary["goes_on"]) == (data["ended_by"], command)
    assert f"It has {reached}; continue with: {command}" in in_words(summary)
    assert to_markdown(read_report(office.store, "fake", NOW), NOW).count(f"Run finished; {why}") == 1
    with (console := Console(width=100)).capture() as drawn:
        console.print(panel(view, now=NOW, budget=Budget(None, NOW), baselines=()))
    assert " ".join(word for word in drawn.get().split() if word != "│").count(why) == 1
    with (console := Console(width=100)).capture() as drawn:
        console.print(panel(replace(view, attempts_per_minute=7.0), now=NOW, budget=Budget(None, NOW), baselines=()))
    assert "a minute" not in drawn.get(), "a run that has ended has no rate"
    assert why in " ".join(workers(view, NOW).plain.split())

    assert to_json(view, NOW)["left"] == {limit.setting: 0}
    working = replace(view, run=replace(view.run, state=RunState.RUNNING))
    assert Budget(None, NOW).used(working, NOW) == 1
    with (console := Console(width=100)).capture() as drawn:
        console.print(panel(working, now=NOW, budget=Budget(None, NOW), baselines=()))
    assert shown in drawn.get()

    db = ("--db", office.store.url)
    assert f"left {left}" in " ".join(CliRunner().invoke(app, ["status", "fake", *db]).stdout.split())
    assert f"finished; {why}" in " ".join(CliRunner().invoke(app, ["status", "fake", *db]).stdout.split())
    for again in ([], [option, str(most)]):
        refused = CliRunner().invoke(app, ["resume", "fake", *db, *again])
        assert refused.exit_code == 2
        assert refused.stderr == f"avo: run 'fake' has {reached}: give a larger limit with {option}\n"
