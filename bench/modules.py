"""Python files as modules, wherever they lie."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def imported(file: Path) -> ModuleType:
    """Return a file as a module of its name; Triton reads the text of kernels from their file."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[file.stem] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
