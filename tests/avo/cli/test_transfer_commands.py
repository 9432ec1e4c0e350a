"""``avo run --from`` a run of another problem, and where its progress is shown."""

import json
from pathlib import Path

import pytest

from avo.cli.session import in_words, summarise
from avo.config import START, TIMED_FIRST, TRANSFERRED
from avo.evaluator.resolution import Difference
from avo.evaluator.target import ScoreKind
from avo.lineage_db.decision import Lead
from avo.lineage_db.directions import Direction, Evidence
from avo.lineage_db.store import Store
from avo.search.transfer import taken_over
from avo.seeds import seed_source
from tests.avo.cli.conftest import Avo
from tests.avo.recorded import Recorded
from tests.avo.sample_run import make_sample_run

COMMAND = ("run", "--problem", "gqa", "--operator", "command", "--command", "true")


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with the run mha-h100, in which nobody works on new runs."""
    monkeypatch.setattr("avo.cli.session.work_on", lambda *_, **__: None)
    url = str(tmp_path / "transfer.db")
    make_sample_run(url)
    return url


def test_mha_to_gqa_takes_the_version_as_it_is(avo: Avo, url: str) -> None:
    result = avo("run", "--problem", "gqa", "--from", "mha-h100@2", "--db", url)
    assert (result.exit_code, result.stderr) == (0, "")
    with Store.open(url) as store:
        source = store.version(store.run("mha-h100").id, 2).attempt.source
        config = store.run("gqa-h100").config
    assert config[START] == [{"origin": "mha-h100@2", "source": source}]
    assert config[TRANSFERRED] == {"run": "mha-h100", "version": 2, "use": "seed"}


def test_mha_to_fsa_starts_from_a_seed_of_its_own_and_mutate_says_that_it_cannot_adapt(avo: Avo, url: str) -> None:
    result = avo("run", "--problem", "fsa", "--from", "mha-h100", "--seed-kernel", "kv_outer", "--db", url)
    assert result.exit_code == 0
    assert result.stderr == (
        "avo: operator 'mutate' cannot adapt mha-h100@3, which takes other arguments: it edits fsa/kv_outer.py\n"
    )
    with Store.open(url) as store:
        config = store.run("fsa-h100").config
    assert config[START] == [{"origin": "fsa/kv_outer.py", "source": seed_source("fsa", "kv_outer")}]
    assert config[TRANSFERRED]["use"] == "nothing"


def test_a_run_starts_from_all_seeds_for_its_target_or_from_the_one_that_is_named(
    avo: Avo, url: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("x = 1\n")
    avo("run", "--target", "h200", "--name", "all", "--db", url)
    avo("run", "--target", "h200", "--name", "one", "--seed-kernel", "tuned", "--db", url)
    avo("run", "--target", "h200", "--name", "own", "--seed-kernel", "mine.py", "--db", url)
    avo("run", "--target", "b200", "--name", "b200", "--db", url)
    avo("run", "--target", "a100", "--name", "a100", "--db", url)
    with Store.open(url) as store:
        found = {name: store.run(name).config[START] for name in ("all", "b200", "a100", "one", "own")}
    origins = {name: [each["origin"] for each in start] for name, start in found.items()}
    assert origins["a100"] == ["mha/plain.py", "mha/tuned.py"]
    assert origins["all"] == [*origins["a100"], "mha/hopper.py"]
    assert origins["b200"] == [*origins["a100"], "mha/blackwell.py"]
    assert found["one"] == [found["all"][1]]
    assert found["own"] == [{"origin": "mine.py", "source": "x = 1\n"}]


def test_a_run_for_a_setting_starts_from_the_seeds_that_serve_it(avo: Avo, url: str) -> None:
    assert avo("run", "--problem", "gqa-d64-fp16", "--db", url).exit_code == 0
    assert avo("run", "--problem", "mha-d192x128", "--db", url).exit_code == 0
    with Store.open(url) as store:
        runs = [store.run(name) for name in ("gqa-d64-fp16-h100", "mha-d192x128-h100")]
    assert [run.problem for run in runs] == ["gqa-d64-fp16", "mha-d192x128"]
    starts = [[each["origin"] for each in run.config[START]] for run in runs]
    assert starts == [["mha/plain.py", "mha/tuned.py"], ["mha/general.py"]]


def test_a_version_that_does_not_take_a_window_is_no_seed_where_there_is_one(avo: Avo, url: str) -> None:
    avo("run", "--problem", "mha-d64", "--from", "mha-h100@2", "--name", "other-dims", "--db", url)
    result = avo("run", "--problem", "mha-w1024", "--from", "mha-h100@2", "--name", "window", "--db", url)
    assert "cannot adapt mha-h100@2, which takes other arguments: it edits mha/general.py" in result.stderr
    with Store.open(url) as store:
        uses = [store.run(name).config[TRANSFERRED]["use"] for name in ("other-dims", "window")]
    assert uses == ["seed", "nothing"]


def test_a_version_that_is_the_seed_leaves_no_room_for_another(avo: Avo, url: str) -> None:
    for problem in ("mha", "gqa"):
        result = avo("run", "--problem", problem, "--from", "mha-h100", "--seed-kernel", "tuned", "--db", url)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert "--from names the seed already" in result.stderr


def test_how_a_transfer_went_is_shown_with_its_run(avo: Avo, url: str) -> None:
    avo("run", "--problem", "gqa", "--from", "mha-h100@2", "--db", url)
    words = "Took over mha-h100@2 (mha) as its seed: first correct not yet, first better not yet."
    assert words in avo("lineage", "gqa-h100", "--db", url).stdout
    assert words not in avo("lineage", "mha-h100", "--db", url).stdout
    new, old = json.loads(avo("runs", "--db", url, "--json").stdout)
    assert (new["transferred"]["origin"], new["transferred"]["better"], old["transferred"]) == (
        "mha-h100@2",
        None,
        None,
    )
    with Store.open(url) as store:
        assert words in in_words(summarise(store, "gqa-h100"))


def test_a_run_starts_from_an_attempt_that_is_no_version(avo: Avo, url: str) -> None:
    assert avo("run", "--from", "mha-h100#6", "--name", "new", "--db", url).exit_code == 0
    assert avo("run", "--problem", "gqa", "--from", "mha-h100#6", "--db", url).exit_code == 0
    with Store.open(url) as store:
        source = store.attempt(store.run("mha-h100").id, 6).source
        new, other = store.run("new").config, store.run("gqa-h100").config
    assert new[START] == other[START] == [{"origin": "mha-h100#6", "source": source}]
    assert other[TRANSFERRED] == {"run": "mha-h100", "version": 2, "attempt": 6, "use": "seed"}
    assert "Took over mha-h100#6 (mha)" in avo("lineage", "gqa-h100", "--db", url).stdout


def test_a_run_on_a_gpu_is_told_what_the_run_it_starts_from_could_not_resolve(
    avo: Avo, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avo.cli.session.ready", lambda config: config)
    why = Lead(3, Difference(0.05, 0.7)).decide(0.01, 0.9)
    with Store.open(url) as store:
        run = Recorded(store, "predicted")
        run.step(100.0)
        run.step(105.0, (0,), "one barrier less", accept=False, decision=why, source="x = 105")
        name = f"predicted#{store.attempts(run.run.id)[1].id}"
    result = avo("run", "--from", "predicted", "--target", "cuda", "--name", "timed", "--db", url)
    assert result.stderr == f"avo: timed first, unresolved in predicted: {name}\n"
    avo("run", "--from", "predicted", "--target", "h200", "--name", "again", "--db", url)
    with Store.open(url) as store:
        waiting = store.run("timed").config[TIMED_FIRST]
        assert TIMED_FIRST not in store.run("again").config
    assert waiting == [{"name": name, "change": "one barrier less", "source": "x = 105"}]


def test_a_run_takes_over_the_directions_of_a_run_or_of_a_file(avo: Avo, url: str, tmp_path: Path) -> None:
    tested = Evidence(0, ScoreKind.PREDICTED, 0.031, 0.017, resolved=True, base="version 0", attempts=(4,))
    with Store.open(url) as store:
        old = Recorded(store, "old")
        pages, roles = Direction("pages", "prefetch"), Direction("roles", "loads wait", (tested,))
        store.journal.explore(old.claim().id, [pages, roles], now=old.now)
    file = tmp_path / "old.json"
    file.write_text(avo("memory", "old", "--json", "--db", url).stdout)
    asked = (*COMMAND, "--db", url, "--from-memory")
    results = [avo(*asked, given, "--name", name) for given, name in (("old", "by-run"), (str(file), "by-file"))]
    assert [result.exit_code for result in results] == [0, 0], results[0].stderr
    assert results[0].stderr == "avo: takes over 2 of 2 directions of old\n"
    with Store.open(url) as store:
        assert taken_over(store.run("by-run")) == taken_over(store.run("by-file"))
        assert taken_over(store.run("by-run")) == [each.placed("old", "mha", "h100") for each in (roles, pages)]
    assert avo("memory", "by-run", "--db", url).stdout.splitlines() == [
        "step 0, taken over: roles: +3.1% ± 1.7% over version 0, predicted (run old, mha on h100, attempt 4). "
        "Hypothesis: loads wait.",
        "step 0, taken over: pages: not tested in run old. Hypothesis: prefetch.",
    ]
    again = json.loads(avo("memory", "by-run", "--json", "--db", url).stdout)
    assert (again["run"], again["directions"][0]["evidence"][0]["run"]) == ("by-run", "old")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("nowhere.json", "--from-memory: cannot read nowhere.json: No such file or directory"),
        ("no-run", "no run 'no-run': choose one of"),
        ("{}", "its format is None, not 'avo memory 1'"),
        ('{"format": "avo memory 1", "directions": []}', "has no directions"),
        ('{"format": "avo memory 1", "directions": [{"name": 3}]}', "$[0].name"),
    ],
)
def test_a_memory_that_cannot_be_taken_over_is_told_in_one_line(
    avo: Avo, url: str, tmp_path: Path, given: str, words: str
) -> None:
    if given.startswith("{"):
        (tmp_path / "given.json").write_text(given)
        given = str(tmp_path / "given.json")
    result = avo(*COMMAND, "--from-memory", given, "--db", url)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert words in result.stderr
    refused = avo("run", "--from-memory", "mha-h100", "--db", url)
    assert refused.exit_code == 2
    assert "operator 'mutate' reads no directions: add --operator agent" in refused.stderr
