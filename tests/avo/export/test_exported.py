"""An export with the real judge, and the package that comes out: its own tests, and its wheel."""

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from avo.cli.main import app
from avo.evaluator.candidate import Candidate
from avo.export.choosing import choose
from avo.export.package import VARIANT, render_package, write_package
from avo.lineage_db.store import Store
from avo.seeds import seed_source
from tests.avo.export.sample import correct, passed, sample
from tests.decisions import accept

pytestmark = pytest.mark.long

NOW = datetime(2026, 3, 1, tzinfo=UTC)
IN_SETTINGS = (
    "mha-w1024-sinks", "gqa-packed", "mha-d192x128", "gqa_backward", "decode", "gqa-w1024-c50", "decode-c50-sinks",
)  # fmt: skip
PROBLEM = str(Path(__file__).with_name("small_problem.py"))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    url = str(folder / "lineage.db")
    with Store.open(url) as store:
        run = store.create_run(
            name="small",
            problem=PROBLEM,
            target="h100",
            suite="held_out",
            operator="mutate",
            seed=0,
            config={},
            now=NOW,
        )
        step = store.claims.claim(run.id, worker="worker-0", operator="seed", now=NOW)
        attempt = store.results.record_attempt(
            step_id=step.id, candidate=Candidate(PROBLEM, f"import os\n{seed_source('mha')}"), change="seed",
            parents=(), evaluation=correct(PROBLEM, "held_out", 1.0, "h100"), started=NOW, finished=NOW,
        )  # fmt: skip
        store.results.conclude(step.id, attempt_id=attempt.id, parents=(), reason="seed", now=NOW, decide=accept)
    done = CliRunner().invoke(
        app, ["export", "small", "--db", url, "--out", str(folder / "out"), "--name", "small-one"]
    )
    assert done.exit_code == 0, done.output
    return folder / "out"


def own_tests(package: Path, *options: str, interpret: str = "1") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TRITON_INTERPRET": interpret, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", *options]
    return subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True)


def test_its_own_tests_pass_without_a_gpu(package: Path) -> None:
    done = own_tests(package)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


def test_its_own_tests_notice_a_wrong_kernel(package: Path) -> None:
    kernel = package / "build/torch-universal/small_one/kernels/small_v0.py"
    right = kernel.read_text()
    wrong = right.replace("row_max + tl.log(row_sum)", "row_max + tl.log2(row_sum)")
    assert wrong != right
    kernel.write_text(wrong)
    try:
        assert "2 failed" in own_tests(package, "tests/test_kernels.py", "-k", "odd-full").stdout
    finally:
        kernel.write_text(right)


def write_seeds(folder: Path, name: str, *problems: str, kind: str | None = None) -> Path:
    """Write a package of seeds, by default the problems' first ones, as if they had been judged."""
    run, (seed, *_) = sample()
    versions = []
    for problem in problems:
        attempt = replace(seed.attempt, source=seed_source(problem, kind))
        named = replace(run, problem=problem, name=problem)
        versions.append(passed(choose(named, [replace(seed, attempt=attempt)], attempt), 1.0, 1.0))
    write_package(render_package(name, versions, NOW), folder / "out")
    return folder / "out"


@pytest.mark.parametrize("setting", ["", "-local"])
def test_selected_attention_works_on_the_offline_executor(tmp_path: Path, setting: str) -> None:
    package = write_seeds(tmp_path, "sparse", f"fsa{setting}", f"fsa_backward{setting}")
    picked = "results or refused or falls or itself or one-token or less-than or rely"
    done = own_tests(package, "-k", picked, interpret="0")
    assert "9 passed" in done.stdout, done.stdout + done.stderr


def test_kernels_for_forced_and_for_any_selections_pass_the_tests_of_one_package(tmp_path: Path) -> None:
    package = write_seeds(tmp_path, "mine", "fsa", "fsa-local", "fsa_backward-local")
    done = own_tests(package, "-k", "results or rely or autocast or sound or compiles")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


def test_selected_attention_with_sinks_and_packed_sequences_passes_its_own_tests(tmp_path: Path) -> None:
    package = write_seeds(tmp_path, "mine", "fsa-d192x128-sinks-packed", "fsa_backward-d192x128-sinks-packed")
    picked = "results or sound or compiles or uneven or group-2 or rising or one-token or held or rely"
    done = own_tests(package, "-k", picked)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_kernel_in_gluon_passes_its_own_tests_on_the_offline_executor(tmp_path: Path) -> None:
    package = write_seeds(tmp_path, "mine", "mha", kind="hopper")
    done = own_tests(package, "-k", "results or (agrees and odd)", interpret="0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("problem", IN_SETTINGS)
def test_windows_caps_sinks_packed_sequences_other_dims_and_gradients_pass_their_own_tests(
    tmp_path: Path, problem: str
) -> None:
    package = write_seeds(tmp_path, "mine", "gqa", problem)
    named = problem.replace("-", "_")
    picked = f"({named} or transformers or dispatch) and not gqa_v0 and not sound and not compiles"
    done = own_tests(package, "-k", picked, interpret="1")
    assert done.returncode == 0, done.stdout + done.stderr


def test_training_by_a_backward_kernel_follows_the_loss_of_torchs_own(tmp_path: Path) -> None:
    package = write_seeds(tmp_path, "mine", "mha-d64", "mha_backward-d64")
    command = [sys.executable, "-m", "tests.avo.export.training", str(package / VARIANT), "mine", "50"]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["clean"]
    assert found["backward"] == len(found["mine"]) == 50
    assert found["mine"][-1] < 0.2 * found["mine"][0]
    assert found["mine"] == pytest.approx(found["torch"], rel=0.02)


def test_a_kernel_has_memory_for_descriptors_and_the_callers_allocator_stays(package: Path) -> None:
    script = (
        "import torch, triton\nfrom small_one import _operators\n"
        "from triton.runtime import _allocation\n"
        "triton.set_allocator(mine := lambda *_: None)\n"
        "def kernel(q, out, *, scale):\n"
        "    memory = _allocation._allocator.get()(256, 128, None)\n"
        "    print(memory.shape, memory.dtype, memory.device, scale)\n"
        "_operators.run(kernel, torch.zeros(2), torch.zeros(2), scale=0.5)\n"
        "print(_allocation._allocator.get() is mine)\n"
    )
    folder = package / "build" / "torch-universal"
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.stdout == "torch.Size([256]) torch.int8 cpu 0.5\nTrue\n", done.stderr


def test_unused_imports_are_gone(package: Path) -> None:
    assert "import os" not in (package / "build/torch-universal/small_one/kernels/small_v0.py").read_text()


def test_a_wheel_is_built_of_it(package: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "wheels"]
    done = subprocess.run(command, cwd=package, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (package / "wheels").iterdir()
    held = set(zipfile.ZipFile(wheel).namelist())
    variant = package / "build/torch-universal"
    inside = {str(path.relative_to(variant)) for path in variant.rglob("*.py")}
    assert inside
    assert inside | {f"small_one/{name}" for name in ("dispatch.json", "provenance.json", "py.typed")} <= held
    assert {path.name for path in package.glob("build/*/*")} == {"metadata.json", "small_one"}
