"""``avo log``."""

import json

from tests.avo.cli.conftest import Avo


def test_a_log_has_a_line_for_each_event(avo: Avo) -> None:
    result = avo("log", "mha-h100")
    lines = result.stdout.splitlines()
    assert (result.exit_code, len(lines)) == (0, 1 + 8 * 3 + 4 + 1)
    assert lines[0].endswith("run mha-h100: created")
    assert lines[-1].endswith("run mha-h100: finished")


def test_a_log_as_json_has_an_object_a_line_and_times_in_order(avo: Avo) -> None:
    events = [json.loads(line) for line in avo("log", "mha-h100", "--json").stdout.splitlines()]
    assert {event["run"] for event in events} == {"mha-h100"}
    times = [event["time"] for event in events]
    assert times == sorted(times)
    assert [event["attempt"] for event in events if event["event"] == "attempt"] == sorted(
        event["attempt"] for event in events if event["event"] == "attempt"
    )


def test_following_ends_with_the_run_and_tells_nothing_twice(avo: Avo) -> None:
    assert avo("log", "mha-h100", "--follow").stdout == avo("log", "mha-h100").stdout


def test_an_unknown_run_is_one_line(avo: Avo) -> None:
    result = avo("log", "nope")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
