"""Checks whether this machine can do a run, and says what to do otherwise. Installs and changes nothing."""

import locale
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from avo.errors import AvoError

if TYPE_CHECKING:
    from avo.evaluator.machine import CardState

MEMORY_BYTES = 4 * 2**30
"""Memory that one evaluator may take."""

DISK_BYTES = 2**30
"""Room for temporary files: a session of Ray takes a few hundred MiB."""

_PROBE = """
import triton
import triton.language as tl


@triton.jit
def probe_kernel(Q, Out, size, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    tl.store(Out + offsets, tl.load(Q + offsets, mask=offsets < size), mask=offsets < size)


def attention(q, k, v, out, lse, *, causal, scale):
    probe_kernel[(1,)](q, out, 128, BLOCK=128)
"""
"""A candidate that launches one small kernel."""


BUSY = 4.0
"""Processes that run or wait for each core from which on a machine is called busy."""


class Health(StrEnum):
    """The state of a part of the machine."""

    OK = "ok"
    ABSENT = "absent"
    """Not there, but a run works without it."""
    BROKEN = "broken"
    """A run cannot work with it in this state."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was found out about one part of the machine."""

    name: str
    health: Health
    found: str
    advice: str = ""
    """What to do; empty when nothing needs doing."""


def examine(database: str, ray: Callable[[], AbstractContextManager[object]]) -> Iterator[Check]:
    """Yield the checks one by one; ``database`` is the URL or path that a run would use, ``ray`` starts Ray as it does
    or raises ``AvoError``.
    """
    yield (python := _python())
    if python.health is Health.BROKEN:
        return
    yield from _packages("triton", "torch", "ray", "sqlalchemy")
    yield _processor()
    yield _memory()
    yield _disk()
    yield from _triton()
    yield check_database(database)
    yield from _ray(ray)
    yield from _gpu()
    yield _predictions()
    yield _key()
    yield _terminal()


def before_run(database: str) -> Iterator[Check]:
    """Yield the checks that a run begins with: those that take no time and change from day to day."""
    yield _processor()
    yield _memory()
    yield _disk()
    yield check_database(database)


def examine_judge() -> Iterator[Check]:
    """Yield the checks of what a judge needs: a GPU machine may have neither Ray nor a database."""
    yield _python()
    yield from _packages("triton", "torch")
    yield _processor()
    yield _memory()
    yield from _triton()
    yield from _gpu()


def _python() -> Check:
    found = f"{sys.version.split()[0]}, {sys.platform}"
    if sys.platform != "linux":
        return Check("Python", Health.BROKEN, found, "Triton and the sandbox need Linux: use a container")
    return Check("Python", Health.OK, found)


def _packages(*names: str) -> Iterator[Check]:
    for name in names:
        try:
            yield Check(name, Health.OK, version(name))
        except PackageNotFoundError:
            yield Check(name, Health.BROKEN, "not installed", f"pip install {name}")


def _processor() -> Check:
    usable = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    found = f"{usable} usable of {os.cpu_count()} cores, load average {load:.1f}; avo run uses one per worker"
    if load > BUSY * usable:
        advice = "Ray and judges may not start in time: end other programs, or lower --workers and --evaluators"
        return Check("processor", Health.ABSENT, found, advice)
    return Check("processor", Health.OK, found)


def _memory() -> Check:
    from avo.evaluator.machine import free_bytes

    pages, free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), free_bytes()
    found = f"{pages / 2**30:.1f} GiB, {free / 2**30:.1f} GiB free"
    if min(pages, free) < MEMORY_BYTES:
        health = Health.BROKEN if pages < MEMORY_BYTES else Health.ABSENT
        what = "add memory" if pages < MEMORY_BYTES else "end other programs, or lower --evaluators"
        return Check("memory", health, found, f"an evaluator may take {MEMORY_BYTES / 2**30:.0f} GiB: {what}")
    return Check("memory", Health.OK, found)


def _disk() -> Check:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:.1f} GiB free in {folder}"
    if free < DISK_BYTES:
        return Check("disk", Health.ABSENT, found, "Ray and judges keep files there: make room, or set TMPDIR")
    return Check("disk", Health.OK, found)


def _triton() -> Iterator[Check]:
    """Check the tools in Triton's wheel, then that a candidate is captured in the sandbox and compiled for the H100."""
    spec = find_spec("triton")
    if spec is None or spec.origin is None:
        return
    tools = Path(spec.origin).parent / "backends" / "nvidia" / "bin"
    for name in ("ptxas", "nvdisasm", "cuobjdump"):
        path = tools / name
        if os.access(path, os.X_OK):
            yield Check(name, Health.OK, str(path))
        else:
            advice = "install Triton from a wheel, which brings it: pip install --force-reinstall triton"
            yield Check(name, Health.BROKEN, f"not at {path}", advice)
    yield from _candidate()
    yield from _isolation()


def _candidate() -> Iterator[Check]:
    from avo.evaluator.binary import Binary
    from avo.evaluator.errors import EvaluatorError
    from avo.evaluator.evaluation import Fault
    from avo.evaluator.machine import try_kernel
    from avo.evaluator.targets import get_target

    target = get_target("h100")
    report = "reinstall Triton; if that does not help, report this line"
    try:
        for part, found in zip(("sandbox", "compiler"), try_kernel(_PROBE, target), strict=False):
            if isinstance(found, Fault):
                yield Check(part, Health.BROKEN, f"refuses a small kernel: {found.message}", report)
            elif isinstance(found, Binary):
                yield Check(part, Health.OK, f"makes {len(found.cubin)} bytes for sm_{target.arch} without a GPU")
            else:
                yield Check(part, Health.OK, "captures a small kernel")
    except EvaluatorError as error:
        advice = "no child process starts: check the limits (ulimit -a)"
        if "ModuleNotFoundError" in str(error):
            advice = f"the sandbox sees only packages below {sys.prefix}: install AVO and what it needs there"
        yield Check("sandbox", Health.BROKEN, str(error), advice)


def _isolation() -> Iterator[Check]:
    from avo.evaluator.sandbox.isolation import ADVICE, has_landlock, missing_namespaces

    lacking = missing_namespaces()
    if lacking:
        yield Check("namespaces", Health.ABSENT, f"none for candidates: {lacking}", ADVICE)
    else:
        yield Check("namespaces", Health.OK, "candidates have no network, no home and no other process")
    if has_landlock():
        yield Check("Landlock", Health.OK, "candidates read only what Python and Triton are made of")
    else:
        found = "none" if not lacking else "none, and no namespaces: a candidate could read your files"
        yield Check("Landlock", Health.ABSENT, found, "use Linux 5.19 or newer with Landlock")


def check_database(url: str) -> Check:
    """Check whether a run could use the database at this URL or path."""
    from avo.lineage_db.connecting import FILE_URL, room
    from avo.lineage_db.errors import OlderDatabase, StoreError
    from avo.lineage_db.store import Store
    from avo.watch.wording import counted

    another = "choose another with --db or AVO_DB"
    if "://" not in (name := url.removeprefix(FILE_URL)):
        path = Path(name).absolute()
        folder = next(parent for parent in path.parents if parent.exists())
        for place in (folder, path):
            if place.exists() and not os.access(place, os.W_OK):
                return Check("database", Health.BROKEN, f"{place} is not writable", another)
        if not room(folder / path.name):
            found = f"the disk of {folder} is full: the database can be read, not written"
            return Check("database", Health.BROKEN, found, f"make room there, or {another}")
        if not path.exists():
            return Check("database", Health.OK, f"none at {name}; avo run makes it")
    try:
        with Store.read(url) as store:
            return Check("database", Health.OK, f"{counted(len(store.runs()), 'run')}, schema up to date")
    except OlderDatabase as error:
        return Check("database", Health.OK, str(error))
    except StoreError as error:
        return Check("database", Health.BROKEN, str(error).removesuffix(": choose another path"), another)


def _ray(start: Callable[[], AbstractContextManager[object]]) -> Iterator[Check]:
    if find_spec("ray") is None:
        return
    try:
        with start():
            yield Check("Ray's start", Health.OK, "starts and ends")
    except AvoError as error:
        yield Check("Ray's start", Health.BROKEN, str(error), "end other programs; avo run itself waits longer")


def _gpu() -> Iterator[Check]:
    """Check what ``--target cuda`` needs."""
    from avo.evaluator.errors import EvaluatorUnavailable
    from avo.evaluator.machine import gpu_clocks, gpus

    try:
        found = gpus()
    except EvaluatorUnavailable as error:
        advice = "none is needed: speed is predicted for the target"
        yield Check("GPU", Health.ABSENT, f"no NVIDIA driver that answers: {error}", advice)
        return
    for each in found:
        yield _seen(each)
    card = _card(found[0].name if found else "no GPU")
    yield card
    try:
        # The card that is measured on is not always the driver's first.
        yield Check("GPU clocks", Health.OK, f"readable: {gpu_clocks(measured=card.health is Health.OK)}")
    except EvaluatorUnavailable as error:
        why = f"not readable: {error}"
        yield Check("GPU clocks", Health.ABSENT, why, "measured scores will not say what held the clock down")
    yield _profilers()


def _seen(card: "CardState") -> Check:
    """Say what a card is like, whether a kernel runs on it, and what would make its times steadier."""
    from avo.evaluator.errors import EvaluatorUnavailable
    from avo.evaluator.machine import try_gpu

    name = f"GPU {card.index}"
    try:
        try_gpu(card.uuid)
    except EvaluatorUnavailable as error:
        return Check(name, Health.ABSENT, f"{card.in_words()}; no kernel runs: {error}", "until then choose another")
    steady = "" if card.persistent is not False else "nvidia-smi -pm 1 shortens the start of processes; "
    advice = f"{steady}nvidia-smi -lgc MHZ makes times steadier, where you may lock clocks"
    return Check(name, Health.OK, f"{card.in_words()}; an empty kernel runs", advice)


def _predictions() -> Check:
    from avo.evaluator.errors import BadCards
    from avo.evaluator.known import calibrated
    from avo.evaluator.target import TARGETS

    held = [target.name for target in TARGETS.values() if target.held_against]
    others = [target.name for target in TARGETS.values() if not target.held_against]
    found = f"held against published timings: {', '.join(held)}; not held against anything: {', '.join(others)}"
    try:
        own = calibrated()
    except BadCards as error:
        return Check("predictions", Health.BROKEN, str(error), "move the file away, and calibrate again")
    found += f"; calibrated: {', '.join(own)}" if own else ""
    return Check("predictions", Health.OK, found)


def _card(name: str) -> Check:
    from avo.evaluator.errors import EvaluatorError
    from avo.evaluator.target import CUDA
    from avo.evaluator.targets import get_target

    try:
        card = get_target(CUDA)
    except EvaluatorError as error:
        return Check("GPU", Health.ABSENT, f"{name}: {error}", "until then speed is predicted: choose another target")
    return Check("GPU", Health.OK, f"{card.product}, {card.sms} SMs: avo run --target cuda measures on it")


def _profilers() -> Check:
    from torch.profiler import ProfilerActivity, supported_activities

    found = {name: shutil.which(name) for name in ("ncu", "compute-sanitizer")}
    tools = ", ".join(f"{name} at {path}" if path else f"no {name}" for name, path in found.items())
    cupti = "CUPTI in torch" if ProfilerActivity.CUDA in supported_activities() else "no CUPTI in torch"
    advice = "" if all(found.values()) else "the CUDA toolkit has both, which are optional: put its bin on the PATH"
    return Check("GPU profilers", Health.OK, f"{tools}, {cupti}; times come from CUDA events", advice)


def _key() -> Check:
    if os.environ.get("OPENAI_API_KEY"):
        return Check("OPENAI_API_KEY", Health.OK, "set")
    return Check("OPENAI_API_KEY", Health.ABSENT, "not set", "none is needed by the operator mutate")


def _terminal() -> Check:
    if not sys.stdout.isatty():
        return Check("terminal", Health.ABSENT, "output is not a terminal", "avo ui needs one")
    columns, lines = shutil.get_terminal_size()
    found = f"{columns}x{lines}, TERM={os.environ.get('TERM', '')}, {locale.getpreferredencoding(False)}"
    if columns < 80 or lines < 24:
        return Check("terminal", Health.ABSENT, found, "avo ui wants 80x24 or more")
    return Check("terminal", Health.OK, found)
