"""The problems that candidates are written for: each is a folder here, of its name, that defines ``PROBLEM``.

The modules beside the folders are what several problems share.
"""

from importlib import import_module
from pkgutil import iter_modules

from avo.evaluator.problem import Problem

PROBLEMS: dict[str, Problem] = {
    name: import_module(f"{__name__}.{name}").PROBLEM
    for name in sorted(module.name for module in iter_modules(__path__) if module.ispkg)
}
"""The built-in problems by name."""
