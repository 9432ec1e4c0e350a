"""``avo run --for config.json``: what it says and stores, and where the model is shown."""

import json
from pathlib import Path

import pytest

from avo.config import RunConfig
from avo.export.choosing import choose
from avo.export.package import render_package
from avo.lineage_db.store import Store
from avo.report.reading import _environment
from avo.subject import FOR, subject
from tests.avo.cli.conftest import Avo
from tests.avo.export.sample import passed
from tests.avo.fakes import NOW
from tests.avo.sample_run import make_sample_run

QWEN = str(Path(__file__).parents[1] / "configs" / "Qwen3-8B.json")


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with the run mha-h100, in which nobody works on new runs."""
    monkeypatch.setattr("avo.cli.session.work_on", lambda *_, **__: None)
    url = str(tmp_path / "for.db")
    make_sample_run(url)
    return url


def test_a_run_for_a_model_says_what_was_read_and_keeps_it(avo: Avo, url: str) -> None:
    result = avo("run", "--for", QWEN, "--phase", "decode", "--lengths", "8192,32768", "--batch", "4", "--db", url)
    assert result.exit_code == 0
    assert result.stderr == (
        "avo: Qwen3-8B, decode: model type qwen3; 32 query heads on 8 KV heads; head dim 128, bfloat16; "
        "36 layers of full_attention\n"
        "avo: the problem is decode-h32x8-8192x4-32768x4\n"
    )
    with Store.open(url) as store:
        run = store.run("Qwen3-8B-decode-h100")
    assert run.problem == "decode-h32x8-8192x4-32768x4"
    assert run.config[FOR]["model"] == "Qwen3-8B"
    assert subject(run) == "decode-h32x8-8192x4-32768x4, Qwen3-8B in decode"
    assert RunConfig.stored(run, {}).problem == run.problem, "what is kept of the model is no setting"
    assert ("model", "Qwen3-8B") in _environment(run, None)
    assert "Qwen3-8B in decode" in " ".join(avo("status", run.name, "--db", url).stdout.split())


def test_layers_that_are_not_served_are_named(avo: Avo, url: str, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    layers = ["linear_attention", "full_attention"] * 18
    config.write_text(json.dumps({**json.loads(Path(QWEN).read_text()), "layer_types": layers}))
    result = avo("run", "--for", str(config), "--phase", "train", "--packed", "--db", url)
    assert "avo: not served: 18 layers of linear_attention\n" in result.stderr
    assert "avo: the problem is gqa_backward-h32x8-packed-8192x1\n" in result.stderr
    assert "avo: this is the backward pass; --phase prefill is the forward pass of the same model\n" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--packed"], "--packed says how a model is used: add --for CONFIG.JSON"),
        (["--phase", "train"], "--phase says how a model is used: add --for CONFIG.JSON"),
        (["--for", QWEN, "--problem", "mha"], "--for makes the problem: leave out --problem"),
        (["--for", QWEN, "--phase", "serve"], "--phase: 'serve' should be one of prefill, train, decode"),
        (["--for", QWEN, "--lengths", "8k"], "--lengths: '8k' should be a number of tokens"),
        (["--for", QWEN, "--lengths", "1" * 5000], "should be a number of tokens, as in 4096,16384"),
        (["--for", QWEN, "--suite", "slow"], "unknown suite 'slow': choose one of quick"),
        (["--for", QWEN, "--lengths", "64"], "avo: --lengths, --batch: a sequence has 128 to 65536 tokens"),
        (["--for", QWEN, "--batch", "0"], "a case has one sequence or more, not 0"),
        (["--for", "nowhere.json"], "--for nowhere.json: No such file"),
    ],
)
def test_a_wrong_call_is_one_line(avo: Avo, url: str, arguments: list[str], message: str) -> None:
    result = avo("run", *arguments, "--db", url)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert message in result.stderr


def test_an_exported_package_says_which_model_it_is_for(avo: Avo, url: str) -> None:
    avo("run", "--for", QWEN, "--db", url)
    with Store.open(url) as store:
        run, other = store.run("Qwen3-8B-prefill-h100"), store.run("mha-h100")
        versions = store.versions(other.id)
    found = render_package("kernel", [passed(choose(run, versions, versions[3].attempt), 1.0, 1.0)], NOW)
    assert "for the problem `gqa-h32x8-8192x1` (Qwen3-8B in prefill) on h100" in found["README.md"]
    assert '"model": "Qwen3-8B"' in found["build/torch-universal/kernel/provenance.json"]
