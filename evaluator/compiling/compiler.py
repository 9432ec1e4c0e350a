"""Compiles the IR of a launch plan for a target.

The IR is hostile: it may not parse, may take forever, or abort the compiler. So each compilation is a job of the fork
server (``avo.evaluator.compiling.compile_job``). Its source locations may be anything, so it is compiled without them:
MLIR then takes each operation's line in the text, and a binary's line tables lead to the lines of the IR.
"""

import base64
import hashlib
import json
import math
import os
import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from avo.evaluator.binary import Binary
from avo.evaluator.compiling.passes import Trace
from avo.evaluator.compiling.reasons import advice, failure, in_a_pass, reason
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.locations import located, relocated, without_locations
from avo.evaluator.plan import DEFAULT_LIMITS, KernelIR, LaunchPlan, Level
from avo.evaluator.sandbox import tools
from avo.evaluator.sandbox.jobs import Crashed, Finished, ForkServer, Limits, Outcome, TimedOut
from avo.evaluator.sandbox.memory import MOST_BYTES
from avo.evaluator.target import ScoreKind, Target

JOB_MODULE = "avo.evaluator.compiling.compile_job"
COMPILE_OPTIONS: dict[str, type] = {
    "num_warps": int,
    "num_ctas": int,
    "num_stages": int,
    "maxnreg": int,
    "enable_fp_fusion": bool,
    "enable_reflect_ftz": bool,
    "sched4reg": bool,
    "launch_cooperative_grid": bool,
    "launch_pdl": bool,
}
"""Launch options that reach the compiler, with their types. Others could name files or command lines."""
OFFLINE_OPTIONS = {**COMPILE_OPTIONS, "clc": bool}
"""The same where nothing is scored: programs that take over the work of others are not modelled."""

_NONSENSE = (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError)
"""Errors that reading a malformed reply may raise. A compiler that hostile IR has taken over may write anything."""
_CACHE_FORMAT = 5
COMPILING_S, CLOSELY_S = 200, 400
"""Limits in seconds of processor time on all compilations of one candidate; the second before acceptance, when more
kernels are compiled. Those of a seed take up to 10 s, those of ``seeds/mha/plain`` unrolled 32 times 126 s.
"""
_TOGETHER = 16  # most kernels that are compiled together: in the time that they may take alone, and all may take
_LINE_TABLE = re.compile(r'"[^"\n]*(?:\.loc\b|inline asm|\$[({|])[^"\n]*"')
"""A string that PTX's readers of line tables would take for one, or for the end of the assembly that it is in, or that
LLVM may turn into one: it leaves out ``$(`` and the like.
"""


class Compiler:
    """Compiles kernels, each distinct one once."""

    def __init__(
        self,
        cache_dir: Path | None,
        wall_s: float = 120,
        server: ForkServer | None = None,
        most_kept: int | None = None,
        options: Mapping[str, type] = COMPILE_OPTIONS,
    ) -> None:
        """Keep binaries in ``cache_dir``, if given: the last ``most_kept``, or all. Kernels may have these ``options``.

        Use ``server``, which must serve ``JOB_MODULE``, or a new one.
        """
        self._cache_dir = cache_dir
        self._most_kept = most_kept
        self._options = options
        self._written: deque[Path] = deque()
        self._server = server or ForkServer((JOB_MODULE,))
        self._limits = Limits(
            wall_s=wall_s,
            cpu_s=int(wall_s) + 1,
            memory_bytes=MOST_BYTES,
            file_bytes=2**30,
            open_files=128,
            processes=1024,
            result_bytes=256 * 2**20,
            confined=False,  # ptxas is a process
        )
        self._left_s = math.inf

    def begin(self, *, closely: bool) -> None:
        """Let the compilations of the next candidate take what they may from now on."""
        self._left_s = CLOSELY_S if closely else COMPILING_S

    def prepare(self, kernels: Iterable[KernelIR], target: Target) -> None:
        """Compile kernels of one candidate together, as far as they compile, for ``compile`` to find in the cache.

        This saves starting nvdisasm for each. What ``compile`` says of a kernel does not depend on it: a kernel that
        fails, and those after it, are left to it. Raises like ``compile``.
        """
        # A compiler that one of them takes over could answer for the others too. Where speed is predicted this gains
        # no more than answering for itself; on a GPU, another candidate's kernel could be made slow.
        if self._cache_dir is None or target.kind is ScoreKind.MEASURED:
            return
        wanted: dict[Path, dict[str, Any]] = {}
        for kernel in kernels:
            text = without_locations(kernel.ttir)
            path = self._cache_path(kernel, text, target)
            if path and not (path.exists() or _check_options(kernel, self._options) or _LINE_TABLE.search(text)):
                wanted[path] = _request(kernel, text, target)
        for first in range(0, len(wanted), _TOGETHER):
            some = list(wanted.items())[first : first + _TOGETHER]
            if len(some) == 1:
                return
            payload = json.dumps([request for _, request in some]).encode()
            outcome = self._ask("run_together", payload, replace(self._limits, cpu_s=len(some) * self._limits.cpu_s))
            if not isinstance(outcome, Finished):
                return
            try:
                made = [_binary(reply, target) for reply in json.loads(outcome.result)]
            except _NONSENSE:
                return
            for (path, _), binary in zip(some, made, strict=False):
                self._keep(path, binary)
            if len(made) < len(some):
                return

    def compile(self, kernel: KernelIR, target: Target) -> Binary | Fault:
        """Return the binary, or why there is none. Raises ``EvaluatorUnavailable`` when the sandbox does not start."""
        if fault := _check_options(kernel, self._options):
            return fault
        text = without_locations(kernel.ttir)
        if _LINE_TABLE.search(text):
            return Fault(
                Status.FORBIDDEN,
                f"kernel {kernel.name} has inline assembly with lines of its own: remove .loc, $( and ${{",
            )
        path = self._cache_path(kernel, text, target)
        if path and (cached := _read_cache(path, target)):
            return cached
        subject = f"kernel {kernel.name} for {target.name}"

        def told(why: str) -> str:
            trace = self.trace(kernel, target) if in_a_pass(why) else None
            if isinstance(trace, Trace):
                why = failure(trace, why)
            return located(why, kernel.ttir) + advice(why, target, kernel.ttir)

        outcome = self._run("run", _request(kernel, text, target), f"compiling {subject}", subject, told)
        if isinstance(outcome, Fault):
            return outcome
        try:
            reply = json.loads(outcome.result)
            if "error" in reply:
                status = Status.DOES_NOT_FIT if reply["does_not_fit"] else Status.COMPILE_ERROR
                why = told(f"{reply['error']}{reason(outcome.stderr)}")
                return Fault(status, f"kernel {kernel.name} does not compile for {target.name}: {why}")
            binary = _binary(reply, target)
        except _NONSENSE as error:
            return Fault(Status.CRASHED, f"the compiler's answer cannot be read, for {subject}: {error!r:.200}")
        if path:
            self._keep(path, binary)
        return binary

    def reordered(self, kernel: KernelIR, binary: Binary, target: Target, count: int) -> tuple[Binary, ...] | Fault:
        """Return ``count`` binaries of the kernel whose PTX has its instructions in other orders, see ``orders``. What
        ptxas does not take in an order is ``binary`` again. Raises like ``compile``.
        """
        text = without_locations(kernel.ttir)
        request = {**_request(kernel, text, target), "text": "", "ptx": binary.ptx, "seeds": list(range(count))}
        subject = f"kernel {kernel.name} for {target.name} in other orders"
        outcome = self._run("reordered", request, f"compiling {subject}", subject)
        if isinstance(outcome, Fault):
            return outcome
        try:
            made = [_in_other_order(binary, reply) for reply in json.loads(outcome.result)[:count]]
        except _NONSENSE as error:
            return Fault(Status.CRASHED, f"the compiler's answer cannot be read, for {subject}: {error!r:.200}")
        return (*made, *[binary] * (count - len(made)))

    def trace(
        self, kernel: KernelIR, target: Target, wanted: str | None = None, *, to_gpu_ir: bool = False
    ) -> Trace | Fault:
        """Compile once more, and return how the kernel went through the passes, with the IR before the pass that is
        ``wanted``, see ``passes.read``. Takes several times as long as ``compile``, which it raises like. ``to_gpu_ir``
        leaves out the passes after the last Triton GPU IR.
        """
        asked = {"wanted": wanted, "to_gpu_ir": to_gpu_ir}
        request = {**_request(kernel, without_locations(kernel.ttir), target), **asked}
        subject = f"kernel {kernel.name} for {target.name}"
        outcome = self._run("trace", request, f"tracing the passes of {subject}", subject)
        if isinstance(outcome, Fault):
            return outcome
        try:
            return msgspec.json.decode(outcome.result, type=Trace)
        except ValueError as error:
            return Fault(Status.CRASHED, f"the compiler's passes cannot be read, for {subject}: {error!r:.200}")

    def gpu_ir(self, kernel: KernelIR, target: Target) -> str | Fault:
        """Return the last Triton GPU IR that is made of Triton IR, with locations. Raises like ``compile``, and takes
        a fraction of its time.
        """
        subject = f"kernel {kernel.name} for {target.name}"
        request = _request(kernel, without_locations(kernel.ttir), target)
        outcome = self._run("gpu_ir", request, f"compiling {subject} to Triton GPU IR", subject)
        if isinstance(outcome, Fault):
            return outcome
        return relocated(outcome.result.decode(errors="replace"), kernel.ttir)

    def llvm_ir(self, kernel: KernelIR, target: Target) -> str | Fault:
        """Compile once more, and return the LLVM IR on the way; raises like ``compile``."""
        subject = f"kernel {kernel.name} for {target.name}"
        request = _request(kernel, kernel.ttir, target)
        outcome = self._run("llvm_ir", request, f"compiling {subject} to LLVM IR", subject)
        return outcome if isinstance(outcome, Fault) else outcome.result.decode(errors="replace")

    def canonical(self, plans: Sequence[LaunchPlan], target: Target) -> tuple[LaunchPlan, ...] | Fault:
        """Return the plans with all IR as MLIR itself prints it, so that all who read the text see the same program.

        MLIR's syntax is not one of lines; what it prints has one operation a line. Raises like ``compile``.
        """
        named = {kernel.ttir: kernel for plan in plans for kernel in plan.kernels}
        if not named:
            return tuple(plans)
        request = {"texts": list(named), "arch": target.arch}
        doing = "parsing the IR of the kernels"
        outcome = self._run("canonical", request, doing, doing)
        if isinstance(outcome, Fault):
            return outcome
        try:
            reply = json.loads(outcome.result)
            if "error" in reply:
                kernel = list(named.values())[reply["index"]]
                ir = "Triton GPU IR" if kernel.level is Level.TTGIR else "Triton IR"
                why = f"{reply['error']}{reason(outcome.stderr)}"
                return Fault(Status.COMPILE_ERROR, f"kernel {kernel.name} is not valid {ir}: {why}")
            texts = dict(zip(named, reply["texts"], strict=True))
            chars = max(sum(len(texts[kernel.ttir]) for kernel in plan.kernels) for plan in plans)
        except _NONSENSE as error:
            return Fault(
                Status.CRASHED, f"the compiler's answer cannot be read, for the IR of the kernels: {error!r:.200}"
            )
        if chars > DEFAULT_LIMITS.ttir_chars:  # deep nesting is printed with an indentation that grows
            message = f"the IR of the kernels takes {chars} characters, the limit is {DEFAULT_LIMITS.ttir_chars}"
            return Fault(Status.FORBIDDEN, message)
        return tuple(
            replace(plan, kernels=tuple(replace(kernel, ttir=texts[kernel.ttir]) for kernel in plan.kernels))
            for plan in plans
        )

    def _run(
        self, job: str, request: dict[str, Any], doing: str, subject: str, told: Callable[[str], str] = str
    ) -> Finished | Fault:
        """Run a job of the compiler; for messages, ``doing`` names the work and ``subject`` what it is done to.

        ``told`` puts into words why the compiler aborted.
        """
        outcome = self._ask(job, json.dumps(request).encode(), self._limits)
        if isinstance(outcome, TimedOut):
            all_s = f", {COMPILING_S} s for all of a candidate, {CLOSELY_S} s before acceptance"
            limits = f"{self._limits.cpu_s} s for one kernel{all_s if self._left_s < math.inf else ''}"
            return Fault(Status.TIMED_OUT, f"{doing}: {outcome.reason}: {limits}; unroll less or tune less")
        if isinstance(outcome, Crashed):
            why = told(f"{outcome.reason}{reason(outcome.stderr)}")
            return Fault(Status.CRASHED, f"the compiler aborted on {subject}: {why}")
        return outcome

    def _ask(self, job: str, payload: bytes, limits: Limits) -> Outcome:
        """Run a job within what is left of the time for all."""
        if self._left_s < 1:
            return TimedOut("no processor time is left")
        before_s, cpu_s = self._server.processor_s, int(min(limits.cpu_s, self._left_s))
        outcome = self._server.run(f"{JOB_MODULE}:{job}", payload, replace(limits, cpu_s=cpu_s))
        self._left_s -= self._server.processor_s - before_s
        return outcome

    def close(self) -> None:
        """Stop the fork server."""
        self._server.close()

    def _keep(self, path: Path, binary: Binary) -> None:
        _write_cache(path, binary)
        self._written.append(path)
        if self._most_kept is not None and len(self._written) > self._most_kept:
            self._written.popleft().unlink(missing_ok=True)

    def _cache_path(self, kernel: KernelIR, text: str, target: Target) -> Path | None:
        if self._cache_dir is None:
            return None
        key = json.dumps(
            [_CACHE_FORMAT, version("triton"), tools.versions(), target.arch, kernel.level, kernel.options, text]
        )
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self._cache_dir / digest[:2] / f"{digest}.json"


def _check_options(kernel: KernelIR, known: Mapping[str, type]) -> Fault | None:
    for name, value in kernel.options:
        if name not in known:
            return Fault(Status.FORBIDDEN, f"kernel {kernel.name} asks for the compile option {name!r}")
        if value is not None and type(value) is not known[name]:
            kind = known[name].__name__
            return Fault(Status.COMPILE_ERROR, f"kernel {kernel.name}: option {name} must be {kind}, not {value!r:.80}")
    return None


def _request(kernel: KernelIR, text: str, target: Target) -> dict[str, Any]:
    options = {name: value for name, value in kernel.options if value is not None}
    return {"text": text, "level": kernel.level, "options": options, "arch": target.arch}


def _in_other_order(binary: Binary, reply: dict[str, Any]) -> Binary:
    usage = _usage(reply)
    return replace(
        binary,
        cubin=base64.b64decode(reply["cubin"]),
        ptx=str(reply["ptx"]),
        registers=usage["REG"],
        spill_bytes=usage["STACK"],
        listing=_listing(reply),
    )


def _usage(reply: dict[str, Any]) -> dict[str, int]:
    return {key: int(value) for key, value in re.findall(r"\b(REG|STACK|SHARED):(\d+)", reply["usage"])}


def _listing(reply: dict[str, Any]) -> str:
    return re.sub(r"[ \t]+", " ", reply["listing"])  # nvdisasm aligns columns: a third is left


def _binary(reply: dict[str, Any], target: Target) -> Binary:
    usage = _usage(reply)
    reserved = target.shared_bytes_per_sm - target.shared_bytes_per_cta  # counted by cuobjdump, not by the limit
    return Binary(
        name=reply["name"],
        target=target.name,
        cubin=base64.b64decode(reply["cubin"]),
        ptx=reply["ptx"],
        threads=32 * reply["num_warps"],  # the compiler counts the warps it added for specialisation
        registers=usage["REG"],
        spill_bytes=usage["STACK"],
        shared_bytes=reply["shared"] + max(0, usage["SHARED"] - reserved),
        tensor_memory_columns=reply["tensor_memory"],
        listing=_listing(reply),
        launch=reply["launch"],
        ttgir=reply["ttgir"],
    )


def _read_cache(path: Path, target: Target) -> Binary | None:
    try:
        return replace(msgspec.json.decode(path.read_bytes(), type=Binary), target=target.name)
    except (OSError, ValueError):  # none yet, or a damaged one: compiling again repairs it
        return None


def _write_cache(path: Path, binary: Binary) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(msgspec.json.encode(binary))
    os.replace(file.name, path)
