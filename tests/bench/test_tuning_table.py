"""The table of what ``avo tune`` found has a row for each kernel, target and key."""

from bench.tuning.table import rows


def configuration(block: int, us: float) -> dict[str, object]:
    return {"kwargs": {"BLOCK": block}, "options": {"num_warps": 4}, "us": us, "low_us": us - 1, "high_us": us + 1}


def test_a_row_has_the_fastest_and_what_the_slowest_would_cost() -> None:
    found = {
        "kernel": "scale",
        "target": "h100",
        "key": {"n": "1024", "masked": "False"},
        "configurations": [configuration(64, 10.0), configuration(32, 25.0)],
        "not_possible": [{"reason": "too large"}],
    }
    impossible = {**found, "configurations": []}
    assert list(rows({"rankings": [found, impossible]})) == [
        "| `scale`, n=1024 | h100 | 3 | 1 | 10 (9 to 11) | 2.50 | BLOCK=64, num_warps=4 |",
        "| `scale`, n=1024 | h100 | 1 | 1 | | | |",
    ]
