"""Python files as modules, wherever they lie."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def imported(file: Path, name: str = "") -> ModuleType:
    """Return a file as the module ``name``, by default that of its own name, which others find too: Triton reads the
    text of kernels from their file, and dataclasses look up their module. Raises what importing it raises.
    """
    name = name or file.stem
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
