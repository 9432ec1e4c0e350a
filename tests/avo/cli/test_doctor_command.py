"""``avo doctor``."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import Result

from avo import doctor
from avo.doctor import Health, check_database
from avo.errors import RunFailed
from avo.evaluator import cuda, machine
from avo.evaluator.cuda import nvml
from avo.evaluator.cuda.cards import Card
from avo.evaluator.cuda.device import Clocks
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.sandbox import bubblewrap
from avo.lineage_db import connecting
from avo.search import cluster

Avo = Callable[..., Result]


@pytest.mark.long
def test_a_machine_that_can_run_is_exit_code_0_and_the_key_stays_secret(
    avo: Avo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    result = avo("doctor", "--json")
    assert result.exit_code == 0, result.output
    checks = {check["name"]: check for check in json.loads(result.stdout)}
    for name in ("triton", "ptxas", "nvdisasm", "sandbox", "compiler", "database", "OPENAI_API_KEY"):
        assert checks[name]["health"] == "ok", checks[name]
    assert "sm_90" in checks["compiler"]["found"]
    assert "2 runs" in checks["database"]["found"]
    assert re.search(r"timings: .*h100.*; not held against anything: .*rtx4090", checks["predictions"]["found"])
    assert "secret" not in result.output


def test_a_broken_part_is_exit_code_1_and_says_what_to_do(
    avo: Avo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_triton", lambda: iter(()))  # it starts a sandbox and compiles
    monkeypatch.setattr(cluster, "ray_running", lambda *_, **__: nullcontext())
    (tmp_path / "text.db").write_text("not a database, but long enough to be read as one: " * 40)
    result = avo("doctor", "--db", "text.db")
    assert result.exit_code == 1
    assert "a run does not work here yet: database" in result.stderr
    assert "--db or AVO_DB" in result.stdout


def test_a_terminal_is_shown_with_its_encoding_also_behind_a_status_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: True, encoding=None))
    assert "None" not in doctor._terminal().found


def test_a_database_that_does_not_exist_yet_is_fine(tmp_path: Path) -> None:
    check = check_database(str(tmp_path / "new" / "lineage.db"))
    assert check.health is Health.OK
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_cannot_be_written_is_none_for_a_run(
    tmp_path: Path, sample_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda place, _: str(place) != sample_db)
    check = check_database(f"sqlite:///{sample_db}")
    assert (check.health, check.found) == (Health.BROKEN, f"{sample_db} is not writable")
    assert check.advice == "choose another with --db or AVO_DB"
    monkeypatch.setattr(doctor.os, "access", lambda place, _: place != tmp_path)
    assert check_database(str(tmp_path / "new" / "lineage.db")).found == f"{tmp_path} is not writable"


def test_what_is_no_database_gets_one_advice(tmp_path: Path) -> None:
    (path := tmp_path / "notes.db").write_text("no database")
    check = check_database(str(path))
    assert (check.health, check.found) == (Health.BROKEN, f"{path} is not an SQLite database")
    assert check.advice == "choose another with --db or AVO_DB"


@pytest.mark.parametrize(
    ("error", "advice"),
    [("ModuleNotFoundError: No module named 'msgspec'", f"below {sys.prefix}"), ("it ended", "ulimit -a")],
)
def test_a_package_that_the_sandbox_does_not_see_is_no_matter_of_limits(
    monkeypatch: pytest.MonkeyPatch, error: str, advice: str
) -> None:
    def fails(*_: object) -> None:
        raise EvaluatorUnavailable(f"the sandbox server does not start: {error}")

    monkeypatch.setattr("avo.evaluator.machine.try_kernel", fails)
    (check,) = doctor._candidate()
    assert check.health is Health.BROKEN
    assert advice in check.advice


def test_a_database_on_a_full_disk_is_none_for_a_run(sample_db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "room", lambda path: str(path) != sample_db)
    check = check_database(sample_db)
    assert (check.health, check.found.startswith("the disk of ")) == (Health.BROKEN, True)
    assert check.advice == "make room there, or choose another with --db or AVO_DB"


def test_a_machine_that_is_too_busy_for_ray_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda _: {0, 1})
    for load, health in ((7.9, Health.OK), (8.1, Health.ABSENT)):
        monkeypatch.setattr(doctor.os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        check = doctor._processor()
        assert (check.health, f"load average {load}" in check.found) == (health, True)
        assert bool(check.advice) is (health is Health.ABSENT)

    @contextmanager
    def never() -> Iterator[None]:
        raise RunFailed("Ray does not start (no node in time; load average 99.0 on 2 cores)")
        yield

    (check,) = doctor._ray(never)
    assert (check.health, check.found) == (
        Health.BROKEN,
        "Ray does not start (no node in time; load average 99.0 on 2 cores)",
    )
    assert "again" not in check.advice, "doctor tries it once"
    (check,) = doctor._ray(nullcontext)
    assert (check.health, check.found) == (Health.OK, "starts and ends")


def test_a_machine_without_namespaces_can_run_and_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "missing", lambda: "bubblewrap is not installed")
    check = next(iter(doctor._isolation()))
    assert (check.name, check.health) == ("namespaces", Health.ABSENT)
    assert check.found == "none for candidates: bubblewrap is not installed"
    assert "apt-get install bubblewrap" in check.advice
    monkeypatch.setattr(bubblewrap, "missing", lambda: "")
    assert next(iter(doctor._isolation())).health is Health.OK


class Gpu:
    """NVML's view of a card whose clocks may not be readable."""

    readable = True

    def __init__(self, uuid: str = "first") -> None:
        self._uuid = uuid

    def clocks(self) -> Clocks:
        if not self.readable:
            raise nvml.NvmlMissing("nvmlDeviceGetClockInfo: Not Supported")
        return Clocks(1755 if self._uuid == "ours" else 300, 0x04)


FIRST = nvml.CardState(0, "GPU-1", "NVIDIA H100 80GB HBM3", "default", False, False, 300, 1980, 70.0, 700.0, 33)
SECOND = replace(FIRST, index=1, uuid="GPU-2", compute_mode="exclusive process")


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    def try_gpu(uuid: str) -> None:
        if uuid == "GPU-2":
            raise EvaluatorUnavailable("the card's compute mode is exclusive process")

    monkeypatch.setattr(nvml, "Nvml", Gpu)
    monkeypatch.setattr(nvml, "cards", lambda: [FIRST, SECOND])
    monkeypatch.setattr(machine, "try_gpu", try_gpu)


def test_without_a_driver_the_gpu_is_absent_and_none_is_needed() -> None:
    (check,) = doctor._gpu()
    assert (check.name, check.health) == ("GPU", Health.ABSENT)
    assert check.found == "no NVIDIA driver that answers: nvmlInit: NVML Shared Library Not Found"


@pytest.mark.usefixtures("two_cards")
def test_gpus_are_told_with_their_state_the_card_its_clocks_and_its_profilers(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Card("NVIDIA H100 80GB HBM3", 90, 132, 50 * 2**20, 1.98, 3.35e12, "550.54", "ours")
    monkeypatch.setattr(cuda, "card", lambda: ours)
    first, second, card, clocks, profilers = doctor._gpu()
    state = "NVIDIA H100 80GB HBM3, compute mode default, SM 300 of 1980 MHz, 70 of 700 W, 33 C"
    assert (first.name, first.found) == ("GPU 0", f"{state}; an empty kernel runs")
    assert first.advice.startswith("nvidia-smi -pm 1 shortens")
    assert (second.health, second.found.partition("; ")[2]) == (
        Health.ABSENT,
        "no kernel runs: the card's compute mode is exclusive process",
    )
    assert card.found == "NVIDIA H100 80GB HBM3, 132 SMs: avo run --target cuda measures on it"
    assert clocks.found == "readable: SM 1755 MHz, held down by: software power cap"
    assert profilers.found.startswith("no ncu, no compute-sanitizer, ")
    assert "times come from CUDA events" in profilers.found
    monkeypatch.setattr(Gpu, "readable", False)
    *_, clocks, _ = doctor._gpu()
    assert (clocks.health, clocks.found) == (Health.ABSENT, "not readable: nvmlDeviceGetClockInfo: Not Supported")


@pytest.mark.usefixtures("two_cards")
def test_a_gpu_that_cannot_be_measured_on_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise EvaluatorUnavailable("torch finds no CUDA GPU")

    monkeypatch.setattr(cuda, "card", refuse)
    _, _, card, *_ = doctor._gpu()
    assert (card.health, card.found) == (Health.ABSENT, "NVIDIA H100 80GB HBM3: torch finds no CUDA GPU")


def test_little_free_memory_and_little_room_for_temporary_files_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_bytes", lambda: 2**30)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**29))
    memory, disk = doctor._memory(), doctor._disk()
    assert (memory.health, disk.health) == (Health.ABSENT, Health.ABSENT)
    assert memory.advice == "an evaluator may take 4 GiB: end other programs, or lower --evaluators"
    assert disk.found.startswith("0.5 GiB free in /")
