"""The page and the summary: complete, self-contained, of bearable size, and no one else's markup in them."""

import re
import sqlite3
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser

import pytest

from avo.evaluator.catalogue import get_problem, get_suite
from avo.evaluator.evaluation import CaseScore, Fault, Status
from avo.evaluator.profile import Part, Profile
from avo.evaluator.resolution import Difference
from avo.evaluator.target import ScoreKind
from avo.lineage_db.decision import Lead
from avo.lineage_db.store import Store
from avo.report.data import Report
from avo.report.reading import read_report
from avo.report.render import to_html, to_markdown
from avo.subject import FOR
from tests.avo.recorded import Recorded
from tests.avo.report.hostile import MARKUP, make_hostile_run
from tests.avo.report.test_timeline import LANES
from tests.avo.sample_profile import PROFILE
from tests.avo.sample_run import ABLATION, START, make_evaluation, make_measured

VOID = {"meta", "img", "input"}


class Page(HTMLParser):
    """What a browser makes of a page: its elements, properly nested, and its texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags = Counter[str]()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


@pytest.fixture(scope="module")
def html(sample: Report) -> str:
    return to_html(sample, START)


def test_what_edits_are_worth_is_a_picture_and_a_table_with_the_minimal_kernel(sample: Report) -> None:
    known = replace(sample, view=replace(sample.view, ablation=ABLATION))
    page, without = Page(to_html(known, START)), Page(to_html(sample, START))
    assert page.tags["svg"] == without.tags["svg"] + 2, "for a page and for a telephone"
    assert "what each of its moves is worth in it" in page.text
    assert "+30% ±2%BLOCK_N 64 -> 128" in page.text
    assert "-5.0% ±1.1%exp -> exp2slows it down" in page.text
    assert "Without 2 of them the minimal kernel is predicted at 273 TFLOPS, the version at 260 TFLOPS." in page.text
    assert "minimal = 1" in page.text
    markdown = to_markdown(known, START)
    assert "| +0.4% ±1.0% | num\\_stages 1 -> 2 | worth nothing, within the resolution |" in markdown
    assert "## Edits" not in to_markdown(sample, START)


def test_a_page_tells_of_every_version_with_what_its_numbers_are(html: str) -> None:
    page = Page(html)
    assert [value for value in page.values("id") if re.fullmatch(r"v\d+", value)] == ["v0", "v1", "v2", "v3"]
    words = " ".join(page.text.split())
    for expected in (
        "Best version260predicted TFLOPS, h100, v3",
        "Speeds of versions are predicted for h100",
        "Baselines are published figures",
        "arXiv 2407.08608",
        "+ block_m, block_n = 128, 64",
        "case ragged: 12 of 77 rows are wrong",
        "No model was called.",
    ):
        assert expected in words, expected
    assert page.tags["svg"] == 8  # three trajectories and the bars, each for a page and for a telephone


def test_a_report_on_a_run_for_a_model_begins_with_its_name(sample: Report) -> None:
    config = {**sample.run.config, FOR: {"model": "Qwen3-8B", "phase": "decode", "read": [], "not_served": []}}
    report = replace(sample, view=replace(sample.view, run=replace(sample.run, config=config)))
    assert "<h1>mha, Qwen3-8B in decode on H100 by mutate</h1>" in to_html(report, START)
    assert "# mha, Qwen3-8B in decode on H100 by mutate" in to_markdown(report, START)


def test_nothing_is_loaded_and_only_the_pages_own_script_and_style_may_run(html: str) -> None:
    page = Page(html)
    assert page.values("src") == []
    assert all(value.startswith("#") for value in page.values("href"))
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"]
    assert not re.search(r"url\(|@import|https?://", html)
    policy = next(value for value in page.values("content") if "default-src" in value)
    for tag in ("style", "script"):
        (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = b64encode(sha256(inline.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_ids_are_unique_and_every_reference_leads_somewhere(html: str) -> None:
    page = Page(html)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {value[1:] for value in page.values("href")} <= set(ids)
    assert {part for value in page.values("aria-labelledby") for part in value.split()} <= set(ids)


def test_text_of_candidates_operators_and_models_is_no_markup(store: Store) -> None:
    report = read_report(store, make_hostile_run(store), START)
    html = to_html(report, START, Fault(Status.CRASHED, "</script><img src=x onerror=alert(1)>"))
    page = Page(html)
    assert (page.tags["img"], page.tags["script"], page.tags["style"], page.tags["title"]) == (
        0,
        1,
        1,
        1 + 8 + 2 + 3 * 4,
    )
    assert f"# {MARKUP}" in page.text
    for where in ("seed", "message", "change", "hypothesis", "reason", "expected", "seen", "gluon", "model",
                  "stall", "direction", "supervisor", "command", "niche", "island", "edit", "why needed", "minimal",
                  "releases"):  # fmt: skip
        assert f"{where} {MARKUP}" in page.text, where
    assert "{{ 7 * 7 }}" in page.text
    assert not set("\0\x1b\ud800\u202e") & set(html)
    html.encode()


def test_a_summary_escapes_markup_and_keeps_its_tables(store: Store) -> None:
    text = to_markdown(read_report(store, make_hostile_run(store), START), START)
    assert "<" not in text.replace("&lt;", "")
    assert not re.search(r"(?<!\\)`", text)
    assert not re.search(r"(?<!\\)\[a", text)
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        text.splitlines()[0], "## Trajectory", "## Edits", "## Attempts", "## Environment",
    ]  # fmt: skip
    assert not re.search(r"^[^|\n].*\n\|", text, re.MULTILINE), "many readers take it for the paragraph's next line"
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def test_a_roofline_is_no_prediction_and_said_to_be_the_cards_peaks(store: Store, sample: Report) -> None:
    Recorded(store, target="rtx5090").step(make_evaluation(100.0, target="rtx5090"))
    report = read_report(store, "live", START)
    text, words = to_markdown(report, START), " ".join(Page(to_html(report, START)).text.split())
    assert text.count("|  | roofline | ") == text.count(" |  | roofline |\n") == 2
    assert "Roofline: the useful FLOPs" in text
    assert "Roofline: the useful FLOPs" in words
    assert not any("Roofline: " in page for page in (to_markdown(sample, START), to_html(sample, START)))


def test_a_summary_has_best_baselines_and_trajectory(sample: Report) -> None:
    text = to_markdown(sample, START)
    for line in (
        "The best is version 3, +160% over the seed.",
        "|  | best, v3 | 236 |  | predicted |",
        "|  | cuDNN | 529 |  | published |",
        "| 1 | 165 | 136 | +50% | BLOCK\\_M 64 -> 128, num\\_warps 4 -> 8 |",
        "| published | 600 | 529 | | cuDNN |",
        "| does not fit | 1 |",
    ):
        assert line in text.splitlines(), line
    assert "\n\n\n" not in text


def test_a_summary_says_below_its_table_what_was_seen_of_versions(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0)
    assert "What was seen" not in to_markdown(read_report(store, "live", START), START)
    run.step(120.0, (0,), "wider tiles", seen="+20% on full,\nnone on causal")
    text = to_markdown(read_report(store, "live", START), START)
    assert (
        "\n\nWhat was seen of versions, against what was expected:\n\n- Version 1: +20% on full, none on causal\n\n"
        in text
    )


def test_a_long_edit_is_named_by_its_moves_in_tables_and_told_whole_once(store: Store) -> None:
    run, change = Recorded(store), f"skip: {'masked blocks, ' * 9}; exp2: fold"
    run.step(100.0)
    run.step(150.0, (0,), change)
    run.step(150.0, (1,), change, accept=False, decision=Lead(1, Difference(0.0, 0.5)).decide(0.01, 0.9))
    report = read_report(store, "live", START)
    assert to_markdown(report, START).count("| skip + exp2 |") == 2
    html = to_html(report, START)
    assert html.count(">skip + exp2<") == 3, "what paid, the lineage and the near misses"
    assert Page(html).text.count(change) == 1


def test_the_gain_of_a_near_miss_has_its_own_resolution_where_that_is_known(store: Store) -> None:
    run, best = Recorded(store), make_evaluation(150.0)
    assert best.score is not None
    run.step(100.0)
    run.step(replace(best, score=replace(best.score, neighbours=((149.0,), (151.0,)))), (0,))
    run.step(160.0, (1,), accept=False, decision=Lead(1, Difference(0.05, 0.5, 0.083)).decide(0.01, 0.9))
    run.step(161.0, (1,), accept=False, decision=Lead(1, Difference(0.06, 0.5)).decide(0.01, 0.9))
    report = read_report(store, "live", START)
    words = " ".join(Page(to_html(report, START)).text.split())
    assert "of the kernel as compiled. Its score: mean of 2 neighbours, 150 as compiled: resolves" in words
    for text in (Page(to_html(report, START)).text, to_markdown(report, START)):
        assert "+5.0% ±8.7%" in text.partition("ear misses")[2]
        assert re.search(r"\+6\.0%[^±\n]*unresolved", text.partition("ear misses")[2])


def test_a_run_without_versions_has_a_report_of_what_went_wrong(store: Store) -> None:
    run = Recorded(store)
    empty = read_report(store, "live", START)
    run.step(Status.INCORRECT, accept=False)
    failed = read_report(store, "live", START)
    for report, words in ((empty, "nothing has been evaluated so far"), (failed, "12 of 77 rows are wrong")):
        page = Page(to_html(report, START))
        assert "No attempt has been accepted" in page.text
        assert words in page.text
        assert page.tags["svg"] == 0
        assert "No version yet" in to_markdown(report, START)


@pytest.mark.parametrize(("target", "said"), [("h100", False), ("h20", True), ("cuda", False)])
def test_a_run_for_a_card_that_was_checked_by_nobody_says_so(store: Store, target: str, said: bool) -> None:
    Recorded(store, f"mha-{target}", target=target)
    report = read_report(store, f"mha-{target}", START)
    assert ("were not held against anything." in to_html(report, START).partition("<main>")[0]) is said


def test_a_run_that_will_measure_is_not_called_predicted_before_its_first_version(store: Store) -> None:
    Recorded(store, "mha-cuda", target="cuda")
    html = to_html(read_report(store, "mha-cuda", START), START)
    assert "Speeds of versions are measured" in html
    assert "predicted" not in html


def test_a_measured_run_is_nowhere_called_predicted(store: Store) -> None:
    run = Recorded(store, "mha-cuda", target="cuda")
    run.step(make_measured(600.0))
    run.step(make_measured(640.0), (0,), "stages")
    report = read_report(store, "mha-cuda", START)
    page = Page(to_html(report, START))
    assert "Speeds of versions are measured on NVIDIA H100 80GB HBM3: driver 570.86" in " ".join(page.text.split())
    assert "faster than the best so far" in page.text
    for text in (page.text, to_markdown(report, START)):
        assert "predicted" not in text.replace("predicted slower", "").lower()


def test_a_profile_is_a_section_with_its_timeline_and_pipes(sample: Report) -> None:
    drawn = Profile(
        ScoreKind.PREDICTED, "h100", CaseScore("8k-causal", 100.0, 50.0, "exp"), (Part("all", 0, 50.0, 1.0),), (), (),
        LANES,
    )  # fmt: skip
    page = Page(to_html(sample, START, (PROFILE, drawn)))
    assert page.tags["img"] == 1
    assert page.values("src")[0].startswith("data:image/svg+xml;base64,")
    for words in (
        "8k-full: 217 predicted TFLOPS, h100", "critical is latency, busiest tensor 29%", "assumed at 1.48 GHz",
        "+11.8% ± 2.5", "one more CTA per SM", "not resolved",
    ):  # fmt: skip
        assert words in page.text, words
    decode = replace(sample, view=replace(sample.view, run=replace(sample.run, problem="decode")))
    (case, *_) = get_suite(get_problem("decode"), sample.run.suite)
    bound = replace(PROFILE, score=replace(PROFILE.score, case=case.name, tflops=2.0))
    (title,) = (each for each in Page(to_html(decode, START, (bound,))).text.splitlines() if f"{case.name}: " in each)
    assert " predicted GB/s, " in title
    assert "TFLOPS" not in title
    assert "does not fit: too large" in Page(to_html(sample, START, Fault(Status.DOES_NOT_FIT, "too large"))).text


@pytest.mark.long
def test_ten_thousand_attempts_and_two_hundred_versions_make_a_page_that_can_be_mailed(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0, source="value = 0\n")
    run.step(110.0, (0,), "of many words " * 400, source="value = 1\n")
    run.step(Status.INCORRECT, (0,), "wrong again " * 400, accept=False)
    multiply(store, versions=200, attempts=10_000)
    report = read_report(store, "live", START)
    assert (len(report.attempts), len(report.entries)) == (10_000, 200)
    html = to_html(report, START)
    assert len(html) < 2_000_000
    assert "9800" in Page(html).text
    assert len(to_markdown(report, START)) < 100_000


def multiply(store: Store, versions: int, attempts: int) -> None:
    """Repeat the second version, with ever other sources, and the last attempt of a database until there are so many.

    The store would take half a minute.
    """
    lines = [f"value_{number} = {number} * {number}  # a line of a kernel" for number in range(150)]
    sources = []
    for number in range(versions):
        lines[number % 150] = f"value_{number} = {number}  # changed"
        lines[7 * number % 150] += "."
        sources.append("\n".join(lines).encode())
    with closing(sqlite3.connect(store.url.removeprefix("sqlite:///"))) as raw, raw:
        columns = [row[1] for row in raw.execute("PRAGMA table_info(attempts)")]
        names = ", ".join(columns)

        def copies(attempt: int, changes: Iterable[dict[str, object]]) -> list[tuple[object, ...]]:
            (row,) = raw.execute(f"SELECT {names} FROM attempts WHERE id = ?", (attempt,))
            return [tuple((dict(zip(columns, row, strict=True)) | change).values()) for change in changes]

        better = ({"id": number + 2, "digest": f"{number}", "source": sources[number]} for number in range(2, versions))
        wrong = ({"id": number, "digest": f"{number}"} for number in range(versions + 2, attempts + 1))
        rows = [*copies(2, better), *copies(3, wrong)]
        raw.executemany(f"INSERT INTO attempts ({names}) VALUES ({', '.join('?' * len(columns))})", rows)
        raw.executemany(
            "INSERT INTO versions (run_id, number, attempt_id, parents, accepted, niche, champion) "
            "SELECT run_id, ?, ?, ?, accepted, niche, champion FROM versions WHERE number = 1",
            [(number, number + 2, f"[{number - 1}]") for number in range(2, versions)],
        )
