"""A script's process and what is read of it; ranking, and which configurations are kept."""

import sys
from pathlib import Path

import numpy as np
import pytest

from avo.evaluator.plan import KernelIR
from avo.evaluator.target import TARGETS
from avo.evaluator.tune import Asked, Choice, CountedChoice, Outcome, Ran, Ranking, ScriptFailed, Subject, Time
from avo.evaluator.tuning import prediction
from avo.evaluator.tuning.prediction import ranked
from avo.evaluator.tuning.records import decode, encode
from avo.evaluator.tuning.running import run_script
from avo.evaluator.tuning.script import main
from avo.evaluator.work import Body, Counted

KERNEL = """
import sys
import torch, triton, triton.language as tl

@triton.autotune([triton.Config({"BLOCK": size}) for size in (64, 128)], key=["n"])
@triton.jit
def scale(x, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + i, tl.load(x + i, mask=i < n) * 2, mask=i < n)

def call(n):
    x = torch.randn(n, device="cuda")
    scale[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](x, n)
    return x
"""


END = len(KERNEL.splitlines()) + 1
"""The line on which what is added to ``KERNEL`` starts."""


def run(folder: Path, text: str, *arguments: str, name: str = "script.py") -> tuple[Ran, list[str]]:
    said: list[str] = []
    (folder / name).write_text(KERNEL + text)
    return run_script(folder / name, arguments, TARGETS["h100"], said.append), said


def here(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """What a script's process would write down, made in this one."""
    script, out = folder / "script.py", folder / "record"
    script.write_text(KERNEL + text)
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # Triton 3.9 warns where it is not set
    monkeypatch.setattr(sys, "argv", ["", "h100", str(out), str(script)])
    monkeypatch.setattr(sys, "path", [*sys.path])
    main()
    return decode(out.read_bytes())


@pytest.mark.long
def test_a_script_is_run_as_python_would_run_it(tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("N = 2**30")
    text = """
import neighbour
if __name__ == "__main__":
    print("arguments", sys.argv[1:], torch.cuda.get_device_name())
    call(neighbour.N)
    sys.exit(0)
"""
    ran, said = run(tmp_path, text, "--size", "4")
    assert said == ["arguments ['--size', '4'] NVIDIA H100 SXM5 80GB"]
    assert [str(tried.choice) for tried in ran.tried] == [
        "BLOCK=64, num_warps=4, num_stages=3",
        "BLOCK=128, num_warps=4, num_stages=3",
    ]
    subject = ran.tried[0].subject
    assert (subject.kernel, subject.target, subject.key) == ("scale", "h100", (("n", str(2**30)),))
    asked = ran.tried[0].asked
    assert asked is not None
    assert (asked.programs, asked.readable_bytes, asked.writable_bytes) == (2**24, 2**32, 2**32)
    assert (ran.refused, ran.failed, ran.raised) == ("", "", "")


@pytest.mark.long
def test_the_tests_of_a_file_are_run_and_may_fail(tmp_path: Path) -> None:
    text = """
def test_scaled():
    assert call(2**20).sum().item() > 0

def test_with_the_plugin(triton_offline):
    call(2**10)
"""
    ran, _ = run(tmp_path, text, name="test_scale.py")
    assert [dict(tried.subject.key)["n"] for tried in ran.tried] == [str(2**20)] * 2 + ["1024"] * 2
    assert ran.failed.startswith("1 test failed: ")
    assert ran.failed.endswith("test_scale.py::test_scaled")


def test_a_script_that_reads_what_was_not_computed_is_stopped_and_what_came_before_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = here(tmp_path, "torch.testing.assert_close(call(2**20), torch.zeros(2**20))\ncall(2**10)", monkeypatch)
    assert len(ran.tried) == 2
    assert ran.refused.startswith(f"script.py:{END} reads contents that were never made")
    assert ran.raised == ""


def test_what_a_script_launched_before_it_raised_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = here(tmp_path, "call(2**20)\nraise ValueError('too far off')", monkeypatch)
    assert len(ran.tried) == 2
    assert f'script.py", line {END + 1}, in <module>' in ran.raised
    assert ran.error == "ValueError: too far off"


def test_a_traceback_has_the_scripts_frames_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\nimport json\ndef grid(meta):\n    json.loads('{')\nscale[grid](torch.randn(8, device='cuda'), 8)"
    raised = here(tmp_path, text, monkeypatch).raised
    assert raised.count('script.py", line') == 2
    assert "JSONDecodeError" in raised.splitlines()[-1]
    assert not {"triton", "evaluator"} & {*raised.replace("/", " ").replace(".", " ").split()}


ERRORS = {
    "import nowhere": "ModuleNotFoundError: No module named 'nowhere'",
    "sys.exit(3)": "it ended with exit code 3",
    "sys.exit('enough')": "it ended with exit code enough",
}


@pytest.mark.parametrize("text", ERRORS)
def test_the_error_of_a_script_is_its_own(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert here(tmp_path, text, monkeypatch).raised.splitlines()[-1] == ERRORS[text]


@pytest.mark.long
def test_a_script_that_raises_is_reported_in_one_line_with_its_own_traceback(tmp_path: Path) -> None:
    with pytest.raises(ScriptFailed) as failed:
        run(tmp_path, "1 / 0")
    assert str(failed.value) == f"{tmp_path}/script.py does not run for h100: ZeroDivisionError: division by zero"
    assert f'script.py", line {END}, in <module>\n    1 / 0' in failed.value.details
    assert "evaluator" not in failed.value.details


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ('File "s.py", line 2, in <module>\n    f()\nValueError: two\n  and\n  lines', "ValueError: two ... lines"),
        ('File "s.py", line 1\n    def f(:\n          ^\nSyntaxError: invalid syntax', "SyntaxError: invalid syntax"),
        ("it ended with exit code 3", "it ended with exit code 3"),
    ],
)
def test_an_error_of_several_lines_is_called_by_its_first(raised: str, said: str) -> None:
    assert Ran("h100", (), raised=raised).error == said


@pytest.mark.long
def test_a_script_that_ends_its_process_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ScriptFailed, match=r"script.py ended its process, exit code 7, so nothing is known of it$"):
        run(tmp_path, "import os; os._exit(7)")


def test_a_record_survives_being_written_down() -> None:
    subject = Subject("k", "k.py:1", "h100", (("n", "5"),), (("x", "torch.float32"),))
    body = Body(1.0, 2.0, 3.0, 4.0)
    counted = Counted((np.array([2, 3]),), (body,), Body(0, 0, 1, 1), (None,), (range(3, 9),))
    asked = Asked(KernelIR("k", "module", (("num_warps", 4),)), 2, counted, 10, 20)
    ran = Ran(
        "h100",
        (CountedChoice(subject, choice(64), asked), CountedChoice(subject, choice(128), None, "too large")),
        "cache",
    )
    again = decode(encode(ran))
    (first, second) = again.tried
    assert first.asked is not None
    assert first.asked.counted.trips[0].tolist() == [2, 3]
    assert first.asked.counted.lines == (range(3, 9),)
    assert (first.asked.kernel, first.subject, first.choice) == (asked.kernel, subject, choice(64))
    assert (second, again.cache) == (ran.tried[1], "cache")


def choice(block: int) -> Choice:
    return Choice((("BLOCK", str(block)),), (("num_warps", "4"),))


def timed(block: int, us: float | None, draws: tuple[float, ...] = (), doubt: float = 1.0) -> Outcome:
    if us is None:
        return Outcome(choice(block), None, "does not fit")
    return Outcome(choice(block), Time(us, us, 2 * us, "hbm", (), 4, 32, 0, 0, 8, 0.5, draws, doubt))


def test_an_error_of_our_own_is_the_reason_of_one_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr(prediction, "_time", broken)
    counted = Counted((), (), Body(0, 0, 1, 1))
    tried = CountedChoice(
        Subject("k", "k.py:1", "h100", (), ()), choice(64), Asked(KernelIR("k", "", ()), 1, counted, 0, 0)
    )
    found = prediction.outcome(tried, "")
    assert found.time is None
    assert found.reason == "an error in AVO, please report it: IndexError('list index out of range')"


def test_equal_times_keep_the_order_of_the_decorator() -> None:
    outcomes = [timed(64, 5.0), timed(32, None), timed(16, 3.0), timed(8, 3.0), timed(4, 5.0)]
    assert [outcome.choice for outcome in ranked(outcomes)] == [choice(size) for size in (16, 8, 64, 4, 32)]


def test_contenders_are_those_that_cannot_be_told_apart_from_the_fastest() -> None:
    subject = Subject("k", "k.py:1", "h100", (), ())
    outcomes = (
        timed(16, 3.0, (2.9, 3.1, 3.0)),
        timed(8, 3.02, (2.92, 3.12, 3.02)),
        timed(4, 3.2, (3.1, 3.3, 3.2)),
        timed(2, 3.3, (2.8, 3.6, 3.5)),
        timed(1, None),
    )
    ranking = Ranking(subject, outcomes, tuple(outcome.choice for outcome in outcomes))
    assert ranking.contenders(4) == (choice(16), choice(8), choice(2))
    assert ranking.contenders(2) == (choice(16), choice(8))
    assert Ranking(subject, (timed(1, None),), ()).contenders(4) == ()


def test_a_configuration_is_written_as_source_code() -> None:
    made = Choice((("BLOCK", "64"), ("TYPE", "'fp16'")), (("num_warps", "4"), ("num_stages", "3")))
    assert made.code == "triton.Config({'BLOCK': 64, 'TYPE': 'fp16'}, num_warps=4, num_stages=3)"
