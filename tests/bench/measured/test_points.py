"""Published measurements: each names its source, and becomes launches whose work is counted."""

from dataclasses import replace

import pytest

from avo.evaluator.offline import OfflineError
from avo.evaluator.target import TARGETS
from bench.measured import families, searches
from bench.measured.capture import empty, recorded
from bench.measured.families import FAMILIES, rows
from bench.measured.points import DATA, held_out, sources, table
from bench.measured.searches import SPACE, chosen
from bench.measured.statistics import judge
from tests.corpus import sample

TABLES = sorted(path.stem for path in DATA.glob("*.csv") if path.stem != "sources")
TIMINGS = {"do_bench", "graph", "proton", "events"}


@pytest.mark.parametrize("name", TABLES)
def test_every_row_has_a_source_and_a_time(name: str) -> None:
    rows = table(name)
    assert rows
    for row in rows:
        assert row["source"] in sources()
        assert name == "block_fp8" or float(row["measured_us"]) > 0


def test_every_source_says_where_what_card_and_how_it_was_timed() -> None:
    for source in sources().values():
        assert source.where
        assert source.stated
        assert source.card in TARGETS
        assert source.timing in TIMINGS


def test_every_source_is_used() -> None:
    assert {row["source"] for name in TABLES for row in table(name)} == set(sources())


@pytest.mark.parametrize("name", sample(FAMILIES, 2))
def test_a_row_of_each_family_becomes_launches_of_its_kernel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _first_rows(monkeypatch, 1)
    for row in rows(name):
        assert row.launches
        assert row.measured_us > 0
        assert row.least_bytes > 0


def test_work_is_counted_of_the_whole_grid() -> None:
    row = next(rows("mm"))
    (launch,) = (each.work for each in row.launches)
    m, n, k, block_m, block_n, block_k = 128, 12288, 4096, 64, 128, 128
    assert (row.source.card, row.measured_us, row.source.cold, row.source.graph) == ("h100", 52.9, True, False)
    assert launch.programs == m // block_m * (n // block_n)
    assert launch.loops[0].trips.tolist() == [k // block_k] * launch.programs
    assert launch.total("dot_flops") == 2 * m * n * k
    assert row.least_bytes == 2 * (m * k + k * n + m * n)


def test_what_does_not_compile_is_said() -> None:
    row = next(rows("mm"))
    broken = replace(row.launches[0], lowered=replace(row.launches[0].lowered, ttir="module {"))
    with pytest.raises(OfflineError, match="does not compile"):
        judge(replace(row, launches=(broken,)))


@pytest.mark.long
def test_sequences_of_the_paged_cache_decide_how_often_programs_loop() -> None:
    row = next(each for each in rows("paged attention") if each.label.startswith("16/16/8/16"))
    (launch,) = row.launches
    assert launch.grid == (17 // (16 // 4) + 2, 8, 1)  # one query, then 16
    assert launch.counted is not None
    assert launch.counted.trips[1].tolist() == [1, 1, 1, 1, 1, 0] * 8  # the last program of each head has no query


def test_recording_leaves_triton_as_it_was() -> None:
    import triton

    driver, compiler = triton.runtime.driver, triton.compiler.compile
    before = vars(driver).get("_active")
    with pytest.raises(ZeroDivisionError), recorded("h100"):
        empty((1 // 0,), "float16")
    assert vars(driver).get("_active") is before
    assert triton.compiler.compile is compiler


def test_halves_depend_on_what_was_measured_and_not_on_who_did() -> None:
    labels = [f"configuration {i}" for i in range(1000)]
    halves = [held_out("mm", ("sglang-a", 64, 4096), label) for label in labels]
    assert halves == [held_out("mm", ("sglang-b", 64, 4096), label) for label in labels]
    assert 400 < sum(halves) < 600
    assert halves[:8] == HALVES  # the same on every machine, for ever


HALVES = [True, False, False, True, False, True, True, True]


def test_a_search_predicts_its_winner_and_a_fixed_part_of_the_space() -> None:
    assert len(SPACE) == 1280
    best = SPACE[0]
    assert best in chosen(best)
    others = set(chosen(best)) - {best}
    assert others <= set(chosen(SPACE[-1]))
    assert 40 < len(others) < 160
    assert {each[0] for each in chosen(best, least_rows=64)} == {best[0], 64, 128, 256}


def test_a_search_launches_the_configurations_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    _first_rows(monkeypatch, 1)
    monkeypatch.setattr(searches, "chosen", lambda best, least_rows: [best])
    (found,) = searches.searches()
    assert found.problem == ("vllm-fp8", 1, 2112, 7168)
    assert found.launches[found.best].grid == (2112 // 32, 1, 1)
    assert found.launches[found.best].options["num_stages"] == 5


def _first_rows(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    def few(name: str) -> list[dict[str, str]]:
        return table(name)[:count]

    for module in (families, searches):
        monkeypatch.setattr(module, "table", few)
