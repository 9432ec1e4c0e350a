"""A CUDA driver without a GPU, and workers on it."""

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import triton

from avo.evaluator.cuda.contender import Contender, start_worker

HERE = Path(__file__).parent
HEADERS = Path(triton.__file__).parent / "backends" / "nvidia" / "include"
Start = Callable[..., Contender]


@pytest.fixture(scope="session")
def libcuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``stub_card/libcuda.c``, built, and beside it ``nvml_stub.c`` by the name of NVML's library."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    library = tmp_path_factory.mktemp("libcuda") / "libcuda.so.1"
    built = {"stub_card/libcuda.c": library, "nvml_stub.c": library.with_name("libnvidia-ml.so.1")}
    for source, made in built.items():
        words = ["cc", str(HERE / source), "-I", str(HEADERS), "-shared", "-fPIC", "-w", "-o", str(made)]
        subprocess.run(words, check=True, timeout=600)
    return library


@pytest.fixture(scope="session")
def stub_command(libcuda: Path) -> tuple[str, ...]:
    """The command of a worker on the stub card."""
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("Triton's launcher is compiled: needs Python's headers")
    paths = [f"{name}={libcuda.parent}" for name in ("LD_LIBRARY_PATH", "TRITON_LIBCUDA_PATH")]
    root = f"PYTHONPATH={HERE.parents[2]}"
    return ("env", *paths, root, sys.executable, "-m", "tests.evaluator.cuda.stub_card.worker")


@pytest.fixture(scope="session")
def start_card(stub_command: tuple[str, ...]) -> Start:
    """Starts a worker on the stub card: its arguments are variables of ``libcuda.c``; ``device`` is its uuid."""

    def start(*settings: str, device: str = "GPU-00000000", **more: Any) -> Contender:
        return start_worker(("env", "NVML_STUB_REASONS=4", *settings, *stub_command), device=device, **more)

    return start


@pytest.fixture(scope="session")
def cards(start_card: Start) -> Iterator[Start]:
    """Workers on stub cards that tests share, by variables of ``libcuda.c``: a new one where a test has ended it."""
    shared: dict[tuple[str, ...], Contender] = {}

    def started(*settings: str) -> Contender:
        worker = shared.get(settings)
        if worker is None or worker.ended or worker._child.code(0.0) is not None:
            worker = shared[settings] = start_card(*settings)
        return worker

    yield started
    for each in shared.values():
        each.close()


@pytest.fixture
def card(cards: Start) -> Contender:
    """A shared worker on a stub H100."""
    return cards()


@pytest.fixture
def blackwell(cards: Start) -> Contender:
    """A shared worker on a stub B200."""
    return cards("STUB_ARCH=100")
