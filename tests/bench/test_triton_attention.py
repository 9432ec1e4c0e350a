"""Triton's own attention is predicted from a checkout, as it is."""

from pathlib import Path

import pytest
import torch

from avo.evaluator.modules import imported
from avo.evaluator.offline import offline
from bench.tables import put
from bench.triton_attention import DOCUMENT, PLACE, PUBLISHED, Published, main, speeds, table

COPY = """
import triton
import triton.language as tl

@triton.jit
def copy(x, out):
    at = tl.program_id(0) * 1024 + tl.arange(0, 1024)
    tl.store(out + at, tl.load(x + at))

def attention_forward(q, k, v, causal, sm_scale, cga_layout):
    assert not causal and cga_layout == ((1, 0),)
    copy[(q.numel() // 1024,)](q, q)
"""


def test_the_example_is_launched_at_each_length_and_its_work_counted_as_attention(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    file = tmp_path / "example.py"
    file.write_text(COPY)
    found = speeds(file, Published("b200", 2, {1024: 1.0, 4096: 1.0}, ""))
    with offline(target="b200", execute=False) as session:
        for tokens in (1024, 4096):
            q = torch.empty(4, 32, tokens, 128, device="cuda", dtype=torch.float16)
            imported(file).attention_forward(q, q, q, False, 1.3, cga_layout=((1, 0),))
    # Two products, of tokens x 128 x tokens each, for 4 sequences of 32 heads.
    for tflops, launch, tokens in zip(found, session.launches, (1024, 4096), strict=True):
        assert tflops == pytest.approx(2 * (2 * 128 * tokens**2) * 4 * 32 / (launch.predict().us * 1e-6) / 1e12)


def test_the_table_has_what_was_published_and_the_mean_error() -> None:
    published = Published("b200", 1, {4096: 1000, 8192: 500}, "a pull")
    *_, found = table([(published, [900.0, 600.0])])
    assert found == "| b200 | 1 | 4096 / 8192 | 900 / 600 | 1000 / 500 | 15% | a pull |"


def test_the_page_has_a_place_for_the_table_with_a_row_for_each_form() -> None:
    page = DOCUMENT.read_text()
    assert put(page, PLACE, "x") != page
    rows = page.partition(f"<!-- {PLACE} -->\n")[2].partition("<!-- end -->")[0].splitlines()[2:]
    assert [row.split(" | ")[:2] for row in rows] == [[f"| {each.target}", str(each.ctas)] for each in PUBLISHED]


def test_a_folder_that_is_no_checkout_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["bench.triton_attention", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"there is no {tmp_path}" in capsys.readouterr().err
