"""Who may read the served page, what it shows, and what a poll costs."""

import json
import re
import sqlite3
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import CaseScore, Fault, Status
from avo.evaluator.profile import Profile
from avo.evaluator.target import ScoreKind
from avo.lineage_db.ending import Cause, Ending
from avo.lineage_db.errors import DatabaseUnavailable
from avo.lineage_db.pages import Pages
from avo.lineage_db.records import Doing, Run, RunState
from avo.lineage_db.store import Store
from avo.report.reading import read_report
from avo.report.render import to_html
from avo.search.judging import Judging
from avo.serve import reading
from avo.serve.reading import Reader
from avo.serve.server import start_judge
from tests.avo.report.hostile import MARKUP
from tests.avo.report.test_timeline import LANES
from tests.avo.sample_run import ABLATION, START
from tests.avo.serve.conftest import TOKEN, client_of, make_long
from tests.avo.shortlisted import measured

PROFILE = Profile(ScoreKind.PREDICTED, "h100", CaseScore("8k-full", 100.0, 50.0, "exp"), (), (), (), LANES)
PATHS = (
    "/",
    "/runs/hostile",
    "/runs/hostile/attempts",
    *(f"/runs/hostile/attempts/{number}" for number in range(1, 5)),
)


def test_only_those_with_the_token_see_anything(client: Any) -> None:
    del client.headers["authorization"]
    for path in ("/", "/runs/mha-h100", "/nothing", f"/?token={TOKEN}x", "/?token=é"):
        answer = client.get(path)
        assert (answer.status_code, "mha" in answer.text) == (401, False)
    assert client.get("/", headers={"authorization": "Bearer other"}).status_code == 401
    assert client.get("/", headers={"cookie": "avo-80=other"}).status_code == 401


def test_the_first_address_leaves_a_cookie_and_leads_to_one_without_the_token(client: Any) -> None:
    del client.headers["authorization"]
    answer = client.get(f"/runs/mha-h100?token={TOKEN}&x=1", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs/mha-h100?x=1")
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert {"avo-80", "avo-80-own"} <= set(client.cookies)
    assert re.findall(r"avo-80(-own)?=.*?samesite=(lax|strict)", answer.headers["set-cookie"].lower()) == [
        ("", "lax"),
        ("-own", "strict"),
    ]
    assert client.get("/runs/mha-h100").status_code == 200


def test_an_address_with_two_slashes_does_not_lead_to_another_host(client: Any) -> None:
    answer = client.get(f"http://testserver//evil.example/?token={TOKEN}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/evil.example/")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_is_only_read(client: Any, method: str) -> None:
    answer = client.request(method, "/runs/mha-h100")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert client.head("/").text == ""


@pytest.mark.parametrize("path", ["/", "/nothing", "/runs/none", "/compare"])
def test_every_answer_keeps_browsers_from_storing_loading_and_telling(client: Any, path: str) -> None:
    headers = client.get(path).headers
    assert (headers["cache-control"], headers["referrer-policy"]) == ("no-store", "no-referrer")
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("path", PATHS)
def test_what_candidates_and_models_wrote_is_escaped(client: Any, path: str) -> None:
    text = client.get(path).text
    assert MARKUP not in text
    assert "<img src=x" not in text
    assert text.count("<script>") == 1
    assert path == "/" or path.endswith("s/1") or "&lt;img src=x" in text


def test_words_of_an_address_are_escaped(client: Any) -> None:
    assert "<img" not in client.get("/runs/mha-h100/attempts", params={"words": MARKUP}).text
    assert "<img" not in client.get("/runs/mha-h100/attempts/4", params={"against": MARKUP}).text


def test_a_run_has_its_trajectory_with_cost_plateau_and_versions(client: Any) -> None:
    text = client.get("/runs/mha-h100").text
    for words in ("260<small>predicted TFLOPS", "0 attempts<small>since v3", "no model", "No step is running", "<svg"):
        assert words in text
    assert '<a href="/runs/mha-h100/attempts/8">8</a>' in text


def test_a_run_says_why_it_ended_and_what_goes_on(client: Any, db: str) -> None:
    with Store.open(db) as store:
        run = store.run("mha-h100")
        ended_by = Ending(Cause.LIMIT, "has made 9 of 9 attempts", "max_attempts", enough=18)
        store.set_run_state(run.id, RunState.FINISHED, now=START, ended_by=ended_by)
    said = "Run finished; it has made 9 of 9 attempts; continue with: avo resume mha-h100 --max-attempts 18."
    assert said in client.get("/runs/mha-h100").text


def test_a_run_has_its_workers_and_what_a_card_measured_beside_the_prediction(client: Any, db: str) -> None:
    with Store.open(db) as store:
        run = store.run("mha-h100")
        store.set_run_state(run.id, RunState.RUNNING, now=START)
        store.driving.take(run.id, "box:1", now=START, lease=timedelta(minutes=1))
        step = store.claims.claim(run.id, worker="worker <7>", operator="mutate", now=START)
        store.claims.tell(step.id, [Doing("judging <b>", START, 2, 9, host="gpu-<3>")], now=START)
        store.measurements.ingest(measured(store, "mha-h100"), now=START)
        text = client.get("/runs/mha-h100").text
        report = to_html(read_report(store, "mha-h100", START), START)
    assert "Driven by box:1" in text
    assert "worker &lt;7&gt;" in text
    for page, links in ((text, True), (report, False)):
        assert page.count("<h3>Measured beside predicted</h3>") == 1, "the pages share the table"
        assert ('<th scope="row"><a href="/runs/mha-h100/attempts/8">v3</a></th><td class="n">260 (' in page) is links
        assert ('<th scope="row">v3</th><td class="n">260 (' in page) is not links
        assert re.search(r'<th scope="row">correct</th><td class="n">5</td><td class="n">62.5%</td>', page)
    assert '<td class="n">260 (234 to 312)</td>' in text
    assert "<td>confirmed: " in text
    whole = client.get("/").text
    assert '<tr><th scope="row">gpu-&lt;3&gt;</th><td><a href="/runs/mha-h100">mha-h100</a></td>' in whole
    assert "judging &lt;b&gt;: 2 of 9" in whole
    with Store.open(db) as store:
        store.set_run_state(run.id, RunState.STOPPED, now=START)
    assert "gpu-" not in client.get("/").text


def test_a_comparison_is_drawn_with_what_the_scores_cannot_tell_apart(client: Any) -> None:
    text = client.get("/compare?run=mha-h100&run=mha-h100-2").text
    assert (
        text.count('class="course c0"') == text.count('class="course c1"') == 4
    )  # attempts and hours, wide and narrow
    assert 'class="band' not in text  # of no known resolution


def test_a_run_has_what_the_edits_of_its_best_version_are_worth_once_that_is_known(client: Any, db: str) -> None:
    before = client.get("/runs/mha-h100")
    tag = {"if-none-match": re.findall(r'data-tag="&#34;(\w+)', before.text)[0].join('""')}
    assert client.get("/runs/mha-h100", headers=tag).status_code == 304
    with Store.open(db) as store:
        store.ablations.keep(store.run("mha-h100").id, ABLATION, now=START)
    after = client.get("/runs/mha-h100", headers=tag)
    assert "is worth in it" not in before.text
    assert (after.status_code, "mha-h100@3: what each of its moves is worth in it" in after.text) == (200, True)
    assert "-5.0% ±1.1%" in after.text


def test_speeds_of_a_kernel_that_memory_bounds_are_in_its_unit_everywhere(client: Any, db: str) -> None:
    with sqlite3.connect(db) as connection:
        connection.execute("UPDATE runs SET problem = 'decode'")
        for case, other in (("8k-causal", "32k-b1-q1"), ("8k-full", "8k-b8-q4-ragged")):
            connection.execute("UPDATE attempts SET evaluation = replace(evaluation, ?, ?)", (case, other))
    with Store.open(db) as store:
        store.measurements.ingest(measured(store, "mha-h100"), now=START)
    best = "8.76 us, 16300 GB/s, 487%"
    for path, words in (
        ("/", f"{best} of the peak".replace("GB/s", "predicted GB/s")),
        ("/runs/mha-h100", f"{best}<small>predicted GB/s, h100"),
        ("/runs/mha-h100", "Measured GB/s"),
        ("/runs/mha-h100", f'<td class="n">{best}</td>'),
        ("/runs/mha-h100", '<p class="headline"><b>'),
        ("/runs/mha-h100/attempts", f'<td class="n">{best}</td>'),
        ("/runs/mha-h100/attempts/8", f"{best} of the peak, h100".replace("GB/s", "predicted GB/s")),
        ("/runs/mha-h100/attempts/8", '<td class="n">29600</td>'),
        ("/compare?run=mha-h100&run=mha-h100-2", "Best predicted GB/s of each, h100"),
        ("/compare?run=mha-h100&run=mha-h100-2", f'<td class="n">{best}</td>'),
    ):
        text = client.get(path).text
        assert words in text, (path, words)
        assert "TFLOPS" not in text.split("<main>")[1].split("Measured beside")[0], path


def test_attempts_come_page_by_page_in_an_order_and_by_words(client: Any) -> None:
    first = client.get("/runs/mha-h100-2/attempts").text
    assert first.count("<tr><td") == 50
    assert ">64</a>" in first
    rest = client.get("/runs/mha-h100-2/attempts?from=50").text
    assert rest.count("<tr><td") == 14
    assert ">1</a>" in rest
    assert "next</a>" not in rest
    oldest = client.get("/runs/mha-h100-2/attempts?order=oldest").text
    assert oldest.index(">1</a>") < oldest.index(">2</a>")
    fastest = client.get("/runs/mha-h100-2/attempts?order=fastest&words=BLOCK_N 128").text
    assert fastest.count("<tr><td") == 8
    assert fastest.index(">64</a>") < fastest.index(">56</a>")
    whole = client.get("/runs/mha-h100-2/attempts?order=fastest").text
    assert whole.index(">56</a>") < whole.index(">62</a>")
    assert "No attempt has all" in client.get("/runs/mha-h100-2/attempts?words=nowhere").text


def test_runs_are_filtered_and_sorted(client: Any) -> None:
    def order(query: str) -> list[str]:
        text = client.get(f"/{query}").text
        names = ("hostile", "mha-h100-2", "mha-h100")
        found = {name: text.find(f'<a href="/runs/{name}">') for name in names}
        return sorted((name for name in names if found[name] >= 0), key=lambda name: found[name])

    assert order("") == ["hostile", "mha-h100-2", "mha-h100"]
    assert order("?order=oldest") == ["mha-h100", "mha-h100-2", "hostile"]
    assert order("?order=fastest&words=MUTATE finished h100-") == ["mha-h100-2"]


def test_an_attempt_is_compared_with_its_parent_or_with_what_is_asked_for(client: Any) -> None:
    parent = client.get("/runs/mha-h100/attempts/4").text
    assert "What it changes in v1" in parent
    assert "+        num_stages=2," in parent
    assert "What it changes in attempt 3" in client.get("/runs/mha-h100/attempts/4?against=%233").text
    assert "The sources are equal" in client.get("/runs/mha-h100/attempts/4?against=v2").text
    assert "edited from nothing" in client.get("/runs/mha-h100/attempts/1").text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/runs/none", 404), ("/runs/mha-h100/attempts/99", 404), (f"/runs/mha-h100/attempts/{10**30}", 404),
        ("/runs/mha-h100/attempts/4?against=v99", 404), ("/runs/mha-h100/attempts/4?against=best", 400),
        ("/compare?run=mha-h100", 400), ("/compare?run=mha-h100&run=none", 404), ("/../etc/passwd", 404),
        ("/runs/mha-h100/attempts?from=-1", 200), ("/runs/mha-h100/attempts?from=x&order=y", 200),
    ],
)  # fmt: skip
def test_a_wrong_address_gets_words_and_never_a_fault(client: Any, path: str, status: int) -> None:
    assert client.get(path).status_code == status


def test_runs_are_compared_at_the_same_cost(client: Any) -> None:
    text = client.get("/compare?run=mha-h100&run=mha-h100-2").text
    assert "Best predicted TFLOPS of each, h100" in text
    assert "By attempts" in text


def test_a_poll_gets_the_page_again_only_when_something_changed(client: Any, db: str) -> None:
    for path in ("/", "/runs/mha-h100", "/runs/mha-h100/attempts"):
        tag = client.get(path).text.split('data-tag="')[1].split('"')[0].replace("&#34;", '"')
        assert client.get(path, headers={"if-none-match": tag}).status_code == 304
        with Store.open(db) as store:
            run = store.run("mha-h100")
            store.set_run_state(run.id, run.state, now=START.replace(hour=13 + len(path) % 7))
        assert client.get(path, headers={"if-none-match": tag}).status_code == 200


def test_a_poll_of_a_long_run_reads_what_is_new(client: Any, db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_long(db, 1, 500)
    read: list[int] = []
    whole = Pages.outcomes

    def outcomes(self: Pages, run_id: int, *, after: int, limit: int) -> Any:
        found = whole(self, run_id, after=after, limit=limit)
        read.append(len(found))
        return found

    monkeypatch.setattr(Pages, "outcomes", outcomes)
    monkeypatch.setattr(Store, "attempt_summaries", None)
    monkeypatch.setattr(Store, "history", None)
    assert "492 attempts<small>since v3" in client.get("/runs/mha-h100-3").text
    assert "1 to 50 of 500" in client.get("/runs/mha-h100-3/attempts").text
    assert sum(read) == 500
    with sqlite3.connect(db) as connection:
        connection.execute("UPDATE runs SET changes = changes + 1")
    client.get("/runs/mha-h100-3")
    assert sum(read) == 500


def test_names_of_no_run_do_not_end_what_is_kept_of_others(db: str) -> None:
    reader = Reader(db, lambda: START)
    client = client_of(reader)
    client.get("/runs/mha-h100")
    _, charts = reader.picture("mha-h100")
    for number in range(40):
        assert client.get(f"/runs/none-{number}").status_code == 404
    assert reader.picture("mha-h100")[1].trajectory is charts.trajectory
    assert list(reader._followed) == ["mha-h100"]


def test_what_is_read_for_another_visitor_for_long_is_to_be_asked_for_again(
    db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(db, lambda: START)
    client = client_of(reader)
    client.get("/runs/mha-h100")
    monkeypatch.setattr(reading, "_WAIT_S", 0.01)
    with reader._followed["mha-h100"].lock, reader._comparing:
        for path in ("/runs/mha-h100", "/compare?run=mha-h100&run=mha-h100-2"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert "being read for another visitor" in answer.text
        assert client.get("/runs/mha-h100-2").status_code == 200
    assert client.get("/runs/mha-h100").status_code == 200


def test_a_profile_is_asked_for_and_what_the_judge_says_is_shown(db: str) -> None:
    def away(run: object) -> Any:
        raise EvaluatorUnavailable("there is no <judge>")

    client = client_of(Reader(db, lambda: START), away)
    text = client.get("/runs/mha-h100/attempts/4?profile=8k-full").text
    assert "No profile: the judge is not available: there is no &lt;judge&gt;" in text
    assert "No profile" not in client.get("/runs/mha-h100/attempts/4?profile=other").text


def test_a_profile_is_made_once_and_drawn_with_its_timeline(db: str) -> None:
    asked: list[str] = []

    class Judge:
        def __enter__(self) -> "Judge":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def profile(self, candidate: Candidate, case: str) -> tuple[Profile, ...]:
            asked.append(case)
            return (PROFILE,)

    client = client_of(Reader(db, lambda: START), lambda run: Judge())
    for _ in range(2):
        text = client.get("/runs/mha-h100/attempts/4?profile=8k-full").text
        assert "Profile of attempt 4" in text
        assert "data:image/svg+xml;base64," in text
    assert asked == ["8k-full"]


def test_a_profile_is_made_for_the_page_itself_and_for_no_other_site(db: str) -> None:
    asked: list[str] = []

    def away(run: Run) -> Any:
        asked.append(run.name)
        raise EvaluatorUnavailable("there is none")

    path = "/runs/mha-h100/attempts/4?profile=8k-full"
    client = client_of(Reader(db, lambda: START), away)
    assert client.head(path).status_code == 200
    del client.headers["authorization"]
    client.get(f"/?token={TOKEN}")
    for site in ("cross-site", "same-site"):
        assert client.get(path, headers={"sec-fetch-site": site}).status_code == 403
        assert client.get("/", headers={"sec-fetch-site": site}).status_code == 200
    assert not asked
    assert client.get(path, headers={"sec-fetch-site": "same-origin"}).status_code == 200
    assert client.get(path).status_code == 200
    assert len(asked) == 2
    client.cookies.delete("avo-80-own")
    assert client.get(path).status_code == 403
    assert client.get("/runs/mha-h100/attempts/4").status_code == 200


def test_a_fault_of_a_profile_is_not_kept(db: str) -> None:
    given = iter((Fault(Status.UNSUPPORTED, "too slow"), (PROFILE,)))

    judge = SimpleNamespace(profile=lambda candidate, case: next(given))
    client = client_of(Reader(db, lambda: START), lambda run: nullcontext(judge))
    path = "/runs/mha-h100/attempts/4?profile=8k-full"
    assert "too slow" in client.get(path).text
    assert "data:image/svg+xml;base64," in client.get(path).text


@pytest.mark.parametrize(
    "settings",
    [{"evaluator_command": "touch made"}, {"worker_prefix": "touch made", "target": "cuda"}, {"target": "cuda"}],
)
def test_what_a_database_names_is_not_started(
    db: str, settings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Judging, "start", None)
    with sqlite3.connect(db) as connection:
        connection.execute("UPDATE runs SET config = ? WHERE name = 'mha-h100'", (json.dumps(settings),))
    text = client_of(Reader(db, lambda: START), start_judge).get("/runs/mha-h100/attempts/4?profile=8k-full").text
    assert "is judged by a command or on a card, and this page starts neither: avo profile mha-h100 does" in text
    assert not (tmp_path / "made").exists()


def test_a_database_that_went_away_is_opened_again(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(db, lambda: START)
    client, before = client_of(reader), reader.store

    def away(self: Store) -> Any:
        raise DatabaseUnavailable("the server is away")

    with monkeypatch.context() as gone:
        gone.setattr(Store, "runs", away)
        answer = client.get("/")
    assert (answer.status_code, "the server is away" in answer.text) == (503, True)
    assert client.get("/").status_code == 200
    assert reader.store is not before
