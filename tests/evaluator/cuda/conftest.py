"""A CUDA driver without a GPU."""

import shutil
import subprocess
from pathlib import Path

import pytest
import triton

HERE = Path(__file__).parent
HEADERS = Path(triton.__file__).parent / "backends" / "nvidia" / "include"


@pytest.fixture(scope="session")
def libcuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``libcuda_stub.c``, built."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    library = tmp_path_factory.mktemp("libcuda") / "libcuda.so.1"
    source = [str(HERE / "libcuda_stub.c"), "-I", str(HEADERS), "-shared", "-fPIC", "-w", "-o"]
    subprocess.run(["gcc", *source, str(library)], check=True, timeout=600)
    return library
