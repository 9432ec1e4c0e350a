"""An assembler that the user chose is the one that compiles, in the sandbox too."""

from pathlib import Path

import pytest

from avo.evaluator.compiling.compiler import Compiler
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import Fault
from avo.evaluator.plan import KernelIR
from avo.evaluator.sandbox import bubblewrap, jobs, landlock, tools
from avo.evaluator.targets import get_target

IR = "module { tt.func public @nothing() { tt.return } }"


@pytest.fixture
def ptxas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An assembler that refuses everything."""
    script = tmp_path / "ptxas"
    script.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "release 12.8, V1" && exit\necho "error: mine" >&2\nexit 1'
    )
    script.chmod(0o755)
    for name in tools.VARIABLES:
        monkeypatch.setenv(name, str(script))
    return script


def test_the_sandbox_is_told_of_the_assembler_and_may_read_it(ptxas: Path) -> None:
    assert {jobs._environment("/")[name] for name in tools.VARIABLES} == {str(ptxas)}
    bound = bubblewrap.command()
    assert bound[bound.index(str(ptxas)) - 1] == "--ro-bind"
    assert str(ptxas) in landlock._made_of()


def test_another_version_of_the_assembler_is_another_key_of_the_cache(ptxas: Path, tmp_path: Path) -> None:
    compiler, kernel, target = Compiler(tmp_path), KernelIR("nothing", IR, ()), get_target("h100")
    before = compiler._cache_path(kernel, IR, target)
    ptxas.write_text(ptxas.read_text().replace("12.8", "12.9"))
    tools._version.cache_clear()
    assert compiler._cache_path(kernel, IR, target) != before


def test_an_assembler_that_is_no_program_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_PTXAS_PATH", "/no/such/ptxas")
    with pytest.raises(EvaluatorUnavailable, match="TRITON_PTXAS_PATH names /no/such/ptxas, which is no program"):
        tools.chosen()


@pytest.mark.long
@pytest.mark.usefixtures("ptxas")
def test_the_assembler_runs_in_the_sandbox() -> None:
    compiler = Compiler(None)
    refused = compiler.compile(KernelIR("nothing", IR, ()), get_target("h100"))
    compiler.close()
    assert isinstance(refused, Fault)
    assert "error: mine" in refused.message
