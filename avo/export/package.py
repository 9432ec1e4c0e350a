"""Packages: the files of an export, rendered to text and written to a folder in one step. No kernel is executed."""

import hashlib
import inspect
import json
import keyword
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from avo.evaluator.problem import Case
from avo.evaluator.problem_sources import attend_source, module_source
from avo.evaluator.target import TARGETS
from avo.evaluator.units import figure, unit_of
from avo.export.errors import ExportError
from avo.export.examples import examples
from avo.export.hub import hub_layout
from avo.export.judging import Passed
from avo.export.provenance import LICENCE, provenance
from avo.export.scaled import tested
from avo.export.table import (
    mentions,
    names,
    neighbours,
    of_seed,
    others,
    published,
    ranked,
    table,
    takes,
    unit_of_case,
    words,
)
from avo.report.figures import WIDE, draw_edits
from avo.report.svg import alone
from avo.watch.wording import (
    SPREAD,
    busiest,
    compared,
    critical,
    measured,
    minimal_kernel,
    percent,
    place,
    spread,
    unit,
    valued,
)

VARIANT = Path("build/torch-universal")
"""Where the Hugging Face kernels library looks for a kernel in Python alone; pip is pointed there as well."""
_LONGEST_NAME = 40
_RESERVED = {
    "torch", "triton", "transformers", "kernels", "tests", "benchmark",
    "pytest", "numpy", "avo", "conftest", "inputs", "judged", "selection", "where",
    "flash_attn", "flash_attn_interface", "xformers", "fla", "vllm", "sglang",
}  # fmt: skip
"""Names of what the package and its tests import, of modules in its tests, and of packages with attention that people
have installed.
"""
_MODULES = {
    "attention": ("_attention.py", "_decode.py", "transformers.py"),
    "selected_attention": ("_selected_attention.py",),
    "decode": ("_decode.py",),
}
"""Modules of ``avo.export.runtime`` by the public function that needs them, besides ``_COMMON``."""
_COMMON = ("_by_torch.py", "_calls.py", "_dispatch.py", "_operators.py")
_PUBLIC = {
    "attention": ("attention", "packed_attention"),
    "selected_attention": ("selected_attention",),
    "decode": ("decode",),
}
"""What the package offers for each of these."""
_TEMPLATES = {
    "attention": ("tests/test_attention.py", "tests/test_transformers.py"),
    "selected_attention": ("tests/test_selected_attention.py",),
    "decode": ("tests/test_decode.py",),
}
_ALWAYS = (
    "LICENSE",
    "README.md",
    "benchmark.py",
    "pyproject.toml",
    "speed.svg",
    "tests/conftest.py",
    "tests/judged.py",
    "tests/test_dispatch.py",
    "tests/test_kernels.py",
    "tests/test_kernels_library.py",
    "tests/where.py",
)


def package_name(given: str | None, runs: Sequence[str]) -> str:
    """Return the import name of a package: the given one, or ``avo_kernel_`` and the run's name in small letters.

    ``runs``: names of all runs that versions come from. Raises ``ExportError`` for a name that cannot be one.
    """
    if given is None:
        words = f"avo kernel {runs[0]}" if len(runs) == 1 else "avo kernels"
        return re.sub(r"[^a-z0-9]+", "_", words.lower())[:_LONGEST_NAME].strip("_")
    name = given.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        raise ExportError(f"--name: {given!r} should be small letters, digits and single dashes, such as my-attention")
    if len(name) > _LONGEST_NAME:
        raise ExportError(f"--name: {given!r} is longer than {_LONGEST_NAME} characters")
    if len(name) < 2 or keyword.iskeyword(name) or name in sys.stdlib_module_names | _RESERVED:
        raise ExportError(f"--name: {given!r} is taken: choose another, such as my-attention")
    return name


def render_package(name: str, versions: Sequence[Passed], now: datetime, *, hub: bool = False) -> dict[str, str]:
    """Return the files of the package called ``name`` with the kernels of ``versions``, by path.

    ``now`` is the time of the export; ``hub``: in the layout of the Hugging Face Hub, see ``hub_layout``.
    """
    versions = ranked(versions)
    named = tuple(zip(names(versions), versions, strict=True))
    functions = tuple(dict.fromkeys(each.chosen.function for each in versions))
    inside = VARIANT / name
    found: dict[str, str] = {}
    for module in (*_COMMON, *(module for function in functions for module in _MODULES[function])):
        found[str(inside / module)] = _runtime(module).read_text(encoding="utf-8")
    for module, each in named:
        header = (
            f"# SPDX-License-Identifier: {LICENCE}\n# {each.chosen.label}: see provenance.json in the folder above.\n"
        )
        found[str(inside / "kernels" / f"{module}.py")] = f"{header}\n{each.chosen.source}"
        if each.chosen.ablation:
            found[f"edits-{module}.svg"] = alone(draw_edits(each.chosen.ablation, WIDE))
    found[str(inside / "kernels/__init__.py")] = '"""The kernels, as the search wrote them."""\n'
    found[str(inside / "py.typed")] = ""
    found[str(inside / "dispatch.json")] = _json(table(versions))
    found[str(inside / "provenance.json")] = _json({"package": name, **provenance(versions, now)})
    cases = {module: [asdict(case) for case in tested(each.chosen.problem)] for module, each in named}
    found["tests/cases.json"] = json.dumps(cases) + "\n"
    for module in ("inputs.py", "selection.py") if "selected_attention" in functions else ("inputs.py",):
        found[f"tests/{module}"] = _of_the_judge(module)
    context = _context(name, versions, functions, now) | {"hub": hub}
    templates = environment()
    for path in (*_ALWAYS, *(path for function in functions for path in _TEMPLATES[function])):
        found[path] = templates.get_template(f"{path}.j2").render(context)
    found[str(inside / "__init__.py")] = templates.get_template("init.py.j2").render(context)
    archs = sorted({f"{each.target.arch / 10:.1f}" for each in versions}, key=float)
    found[str(VARIANT / "metadata.json")] = _json(_metadata(name, found, archs if hub else []))
    return hub_layout(name, found, VARIANT) if hub else found


def check_place(folder: Path) -> None:
    """Raise ``ExportError`` unless a package can be written to ``folder``: empty, or not there yet."""
    try:
        if folder.is_dir():
            if any(folder.iterdir()):
                raise ExportError(f"{folder} is not empty: choose another folder, or empty it")
        elif folder.exists() or folder.is_symlink():
            raise ExportError(f"{folder} is a file: name a folder")
        above = next(each for each in folder.absolute().parents if each.exists())
        if not above.is_dir():
            raise ExportError(f"cannot write {folder}: {above} is a file")
        if not os.access(above, os.W_OK | os.X_OK):
            raise ExportError(f"cannot write {folder}: {above} is not yours to write in")
    except OSError as error:
        raise ExportError(f"cannot write {folder}: {error.strerror}") from error


def write_package(found: Mapping[str, str], folder: Path) -> None:
    """Write the files below ``folder``, all of them or none; raise ``ExportError`` when it cannot be done."""
    check_place(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            for path, text in found.items():
                (scratch / path).parent.mkdir(parents=True, exist_ok=True)
                (scratch / path).write_text(text, encoding="utf-8", newline="")
            scratch.chmod(0o777 & ~_umask())
            scratch.replace(folder)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    except OSError as error:
        raise ExportError(f"cannot write {folder}: {error.strerror}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _context(name: str, versions: Sequence[Passed], functions: Sequence[str], now: datetime) -> dict[str, Any]:
    architectures = {each.target.arch for each in versions}
    return {
        "package": name,
        "distribution": name.replace("_", "-"),
        "functions": functions,
        "triton": _triton(versions),
        "public": ["UnsupportedCall", *sorted(each for function in functions for each in _PUBLIC[function])],
        "kernels": list(zip(names(versions), versions, strict=True)),
        "cards": {
            divmod(card.arch, 10): card.name for card in reversed(TARGETS.values()) if card.arch in architectures
        },
        "targets": tuple(dict.fromkeys(place(each.scores[0]) for each in versions)),
        "kinds": tuple(dict.fromkeys(each.scores[0].kind for each in versions)),
        "table": (made := table(versions)),
        "atomic": [
            kernel
            for kernel, each in zip(names(versions), versions, strict=True)
            if any(judged.atomic for judged in each.evaluations)
        ],
        "backward": [kernel for kernel in made["kernels"] if "dout" in kernel["tensors"]],
        "examples": examples(made),
        "now": now,
        "variant": str(VARIANT),
        "case_source": inspect.getsource(Case),
        "attend_source": attend_source(),
    }


def _triton(versions: Sequence[Passed]) -> str:
    """Return what is required of Triton: for Gluon, whose names change, the release that judged the kernels."""
    if any(mentions(each.chosen.source, "gluon") for each in versions):
        return f"triton=={'.'.join(version('triton').split('.')[:2])}.*"
    return "triton>=3.6"


def environment() -> Environment:
    """Return what renders templates of exports."""
    made = Environment(
        loader=PackageLoader("avo.export"), undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True,
        lstrip_blocks=True, autoescape=False,
    )  # fmt: skip
    made.filters |= {
        "cell": lambda text: " ".join(text.split()).replace("|", "\\|"),
        "spread": spread,
        "busiest": busiest,
        "critical": critical,
        "unit": unit,
        "valued": valued,
        "place": place,
        "compared": compared,
        "measured": measured,
        "minimal_kernel": minimal_kernel,
        "percent": percent,
        "published": published,
        "others": others,
        "of_seed": of_seed,
        "takes": takes,
        "figure": figure,
        "unit_of_case": unit_of_case,
        "headline": words,
        "neighbours": neighbours,
        "whole_unit": lambda run, suite: unit_of(run.problem, suite, run.target),
    }
    made.globals["SPREAD"] = SPREAD
    return made


def _runtime(module: str) -> Traversable:
    return files("avo.export.runtime").joinpath(module)


def _of_the_judge(module: str) -> str:
    """Return a module of the judge's that makes inputs, for a folder where ``judged`` has what it imports."""
    return re.sub(r"from avo\.evaluator\.\S+ import (Case|DenseCase)", r"from judged import \1", module_source(module))


def _metadata(name: str, found: Mapping[str, str], archs: Sequence[str]) -> dict[str, Any]:
    """Return what the kernels library requires; the id tells apart packages that are loaded at the same time."""
    contents = hashlib.sha256("\0".join(f"{path}\0{found[path]}" for path in sorted(found)).encode())
    return {
        "id": f"_{name}_{contents.hexdigest()[:12]}",
        "name": name.replace("_", "-"),
        "version": 1,
        "license": LICENCE,
        "python-depends": [],
        "backend": {"type": "cuda", **({"archs": list(archs)} if archs else {})},
    }


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, allow_nan=False) + "\n"
