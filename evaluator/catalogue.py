"""Finds problems by name: the built-in ones, also in settings, those of installed packages, and those in single files.

A problem's code is trusted: naming it runs it, also in the judge's process.
"""

import hashlib
import traceback
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from avo.evaluator.errors import InvalidProblem, UnknownProblem
from avo.evaluator.modules import imported
from avo.evaluator.problem import HELD_OUT, Case, Output, Problem, signature
from avo.evaluator.problems import PROBLEMS as PROBLEMS
from avo.evaluator.renamed import with_new_name
from avo.evaluator.setting import Settable, Setting, named, setting_of

GROUP = "avo.problems"
"""Entry point group of packages that add problems; each entry is named like its problem."""
ATTRIBUTE = "PROBLEM"
"""Name of the variable that holds the problem in a file."""
_LIBRARIES_TAKE = (
    ("attention", ("q", "k", "v", "out", "lse"), ("causal", "scale")),
    ("attention_backward", ("q", "k", "v", "out", "lse", "dout", "dq", "dk", "dv"), ("causal", "scale")),
)
"""The calls that libraries are timed on."""
_in_files: list[tuple[Problem, str]] = []
"""Problems found in files, with the files' paths."""


def get_problem(name: str) -> Problem:
    """Return the problem called ``name``, which may say a setting (``avo.evaluator.setting``), or the problem in the
    file at this absolute path, which ends in ``.py``.

    Raises ``UnknownProblem`` for an unknown name and ``InvalidProblem`` for an object that is not a problem.
    """
    if name.endswith(".py"):
        return _from_file(name)
    return PROBLEMS.get(name) or _named(name)


@cache
def _named(name: str) -> Problem:
    if name in _entry_points() or (found := read(name)) is None:
        return _installed(name)
    kind, setting = found
    return settable()[kind].in_setting(setting)


def settable() -> Mapping[str, Settable]:
    """Return the built-in problems that exist in settings, by name."""
    return {name: problem for name, problem in PROBLEMS.items() if isinstance(problem, Settable)}


def read(name: str) -> tuple[str, Setting] | None:
    """Return the kind and the setting that the name of a problem says; None for a name of another kind.

    Raises ``InvalidProblem`` for a setting that does not exist, is not served, or is written otherwise.
    """
    kind, *parts = name.split("-")
    if not parts or kind not in settable():
        return None
    problem = settable()[kind]
    try:
        setting = setting_of(parts)
    except LookupError as error:
        a_model = Setting(heads=(32, 8), shapes=((8192, 4),))
        heads = "32x32" if problem.refusal(a_model) else "32x8"
        raise InvalidProblem(
            f"problem {name!r}: {error.args[0]!r} is no part of a setting: write e.g. {kind}-d64-fp16, or "
            f"{kind}-h{heads}-d64-8192x4 (heads, head dim, length x batch)"
        ) from None
    if refused := problem.refusal(setting):
        raise InvalidProblem(f"problem {name!r}: {refused}")
    if name != (canonical := named(kind, setting)):
        raise InvalidProblem(f"problem {name!r}: write {canonical}")
    return kind, setting


def kind_and_setting(name: str) -> tuple[str, Setting | None]:
    """Return the kind and the setting of a problem; for a problem in no setting, its name and None.

    A problem of the user's own may have a name like ``decode-mla``: it says no setting.
    """
    try:
        return read(name) or (name, None)
    except InvalidProblem:
        return name, None


def kind_of(name: str) -> str:
    """Return the kind of a problem in a setting; for any other problem, its name."""
    return kind_and_setting(name)[0]


def name_of(problem: Problem) -> str:
    """Return the name by which another process finds a problem that was found here."""
    return next((file for found, file in _in_files if found is problem), problem.name)


@cache
def _from_file(name: str) -> Problem:
    path = Path(name)
    if not path.is_absolute():
        raise InvalidProblem(f"problem {name}: give its absolute path, so that every process finds it")
    if not path.is_file():
        raise InvalidProblem(f"problem {name}: there is no such file")
    try:
        module = imported(path, f"avo_problem_{hashlib.sha256(name.encode()).hexdigest()[:16]}")
    except Exception as error:
        raise InvalidProblem(f"problem {name} cannot be imported: {_explain(error, name)}") from None
    if not hasattr(module, ATTRIBUTE):
        raise InvalidProblem(f"problem {name}: it defines no {ATTRIBUTE}")
    problem = _checked(getattr(module, ATTRIBUTE), name)
    if problem.name in PROBLEMS or problem.name in _entry_points() or kind_and_setting(problem.name)[1]:
        raise InvalidProblem(f"problem {name}: another problem is called {problem.name!r}: choose another name")
    _in_files.append((problem, name))
    return problem


def _installed(name: str) -> Problem:
    entries = _entry_points()
    if name not in entries:
        raise UnknownProblem("problem", name, (*PROBLEMS, "a setting like mha-d64-fp16", *entries, "a file PATH.py"))
    if len(entries[name]) > 1:
        places = " and ".join(entry.value for entry in entries[name])
        raise InvalidProblem(f"problem {name!r} is defined by {places}: uninstall one of the packages")
    (entry,) = entries[name]
    try:
        found = entry.load()
    except Exception as error:
        raise InvalidProblem(f"problem {name!r} cannot be imported from {entry.value}: {_explain(error)}") from None
    problem = _checked(found, f"{name!r} of {entry.value}")
    if problem.name != name:
        raise InvalidProblem(f"problem {name!r} of {entry.value} calls itself {problem.name!r}: rename one of the two")
    return problem


def _entry_points() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, []).append(entry)
    return found


def _explain(error: Exception, file: str = "") -> str:
    text = (str(error).splitlines() or [""])[0]
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    return with_new_name(f"{type(error).__name__}: {text}{f', line {line}' if line else ''}")


def _checked(found: Any, where: str) -> Problem:
    """Return ``found`` if it has everything that ``Problem`` asks for."""
    wanted = [name for name in vars(Problem) if not name.startswith("_")]
    if missing := [name for name in wanted if not hasattr(found, name)]:
        raise InvalidProblem(f"problem {where}: it lacks {', '.join(missing)}: see avo.Problem")
    if not (isinstance(found.name, str) and found.name.replace("_", "").replace("-", "").isalnum()):
        raise InvalidProblem(f"problem {where}: its name {found.name!r} should consist of letters, digits, - and _")
    if not (isinstance(found.entry, str) and found.entry.isidentifier()):
        raise InvalidProblem(f"problem {where}: its entry {found.entry!r} should be the name of a function")
    if not isinstance(found.suites, Mapping) or "quick" not in found.suites:
        raise InvalidProblem(f"problem {where}: its suites should be a mapping with 'quick' among its keys")
    for title, cases in (("correctness_cases", found.correctness_cases), *found.suites.items()):
        if not (isinstance(cases, tuple) and cases and all(isinstance(case, Case) for case in cases)):
            raise InvalidProblem(f"problem {where}: {title} should be a tuple of one Case or more")
    if not (isinstance(found.outputs, tuple) and all(isinstance(output, Output) for output in found.outputs)):
        raise InvalidProblem(f"problem {where}: its outputs should be a tuple of Output")
    problem: Problem = found
    return problem


def problem_names() -> tuple[str, ...]:
    """Return the names of all problems that are installed: ours, then those of other packages."""
    return (*PROBLEMS, *sorted(_entry_points().keys() - PROBLEMS.keys()))


def problem_name(given: str) -> str:
    """Return the name by which every process finds the problem that a user calls ``given``: a ``.py`` file's absolute
    path.
    """
    return str(Path(given).resolve()) if given.endswith(".py") else given


def get_suite(problem: Problem, name: str) -> tuple[Case, ...]:
    """Return the benchmark cases of a suite; raise ``UnknownProblem`` with the known names otherwise."""
    try:
        return problem.suites[name]
    except KeyError:
        searched = tuple(suite for suite in problem.suites if suite != HELD_OUT)
        raise UnknownProblem("suite", name, searched) from None


def get_cases(problem: Problem, suite: str, name: str | None) -> tuple[Case, ...]:
    """Return the benchmark case called ``name``, or all cases of the suite for None.

    Raises ``UnknownProblem`` for an unknown name.
    """
    cases = get_suite(problem, suite)
    if chosen := tuple(case for case in cases if name in (None, case.name)):
        return chosen
    raise UnknownProblem("case", str(name), tuple(case.name for case in cases))


def libraries_know(problem: Problem) -> bool:
    """Whether libraries compute what a problem asks for: it is called as ``mha`` or ``mha_backward`` are."""
    return signature(problem) in _LIBRARIES_TAKE
