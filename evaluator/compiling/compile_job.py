"""Jobs on Triton IR text, in a process that may crash: compile it to a cubin, or print it again."""

import base64
import contextlib
import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import triton
from triton import knobs
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget, Language
from triton.compiler.compiler import make_backend
from triton.compiler.errors import CompilationError
from triton.runtime import cache
from triton.runtime.errors import OutOfResources, PTXASError

from avo.evaluator.compiling import cubins, orders, passes
from avo.evaluator.compiling.allocating import with_places

for _tool in ("ptxas", "ptxas_blackwell", "cuobjdump", "nvdisasm"):
    getattr(knobs.nvidia, _tool, None)  # asks the tool for its version: here before the fork, once


_REPORTED = (RuntimeError, ValueError, AssertionError, CompilationError, OutOfResources, PTXASError)
"""Failures that the compiler reports itself."""


def run(payload: bytes) -> bytes:
    """Compile a kernel. A failure that the compiler reports itself is a reply with ``error``."""
    request = json.loads(payload)
    try:
        compiled = _compiled(request)
    except _REPORTED as error:
        _pass_on(str(error))
        return json.dumps({"error": _short(error), "does_not_fit": _does_not_fit(error)}).encode()
    reply = _reply(request, compiled)
    return json.dumps({**reply, "listing": listing(Path("kernel.cubin"), compiled.asm["ptx"])}).encode()


def run_together(payload: bytes) -> bytes:
    """Compile kernels one after the other, and reply with what ``run`` does of each, up to the first that fails."""
    replies: list[dict[str, Any]] = []
    for request in json.loads(payload):
        try:
            replies.append(_reply(request, _compiled(request)))
        except _REPORTED as error:
            _pass_on(str(error))
            break
    if not replies:
        return b"[]"
    listings = _listings([(base64.b64decode(reply["cubin"]), reply["ptx"]) for reply in replies])
    return json.dumps([{**reply, "listing": own} for reply, own in zip(replies, listings, strict=True)]).encode()


def _listings(made: Sequence[tuple[bytes, str]]) -> list[str]:
    """Return what ``listing`` does of each cubin, made from this PTX."""
    path = Path("listed.cubin")
    path.write_bytes(cubins.together([cubin for cubin, _ in made]))
    return cubins.apart(listing(path, "".join(ptx for _, ptx in made)), len(made))


def _pass_on(said: str) -> None:
    """End this job as one that wants too much memory if one of NVIDIA's tools said so, or the kernel has killed it."""
    if re.search(r"Memory allocation failure|error code -9\b", said):
        raise MemoryError(said)


def _reply(request: dict[str, Any], compiled: Any) -> dict[str, Any]:
    """Return what is known of a compiled kernel, but for its listing; leave its cubin as a file."""
    metadata: Any = compiled.metadata
    return {
        "name": metadata.name,
        "ttgir": compiled.asm.get("ttgir", ""),
        "ptx": compiled.asm["ptx"],
        "cubin": base64.b64encode(compiled.asm["cubin"]).decode(),
        "usage": _usage(compiled.asm["cubin"]),
        "num_warps": metadata.num_warps,
        "shared": metadata.shared,
        "tensor_memory": getattr(metadata, "tmem_size", None) or 0,
        "launch": _launch(_file(request), request["arch"], compiled),
    }


def _usage(cubin: bytes) -> str:
    """Return what a kernel needs; leave its cubin as a file."""
    Path("kernel.cubin").write_bytes(cubin)
    command = [knobs.nvidia.cuobjdump.path, "-res-usage", "kernel.cubin"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def reordered(payload: bytes) -> bytes:
    """Compile the PTX of a kernel with its instructions in other orders, and reply with what ``run`` does of each that
    ptxas takes, but for what does not depend on the order.
    """
    request = json.loads(payload)
    backend = make_backend(GPUTarget("cuda", request["arch"], 32))
    stages: dict[str, Any] = {}
    backend.add_stages(stages, backend.parse_options(dict(request["options"])), Language.TRITON)
    made = []
    for ptx in orders.orders(request["ptx"], request["seeds"]):
        with contextlib.suppress(PTXASError):
            made.append((stages["cubin"](ptx, {}), ptx))
    replies = [{"ptx": ptx, "usage": _usage(cubin), "cubin": base64.b64encode(cubin).decode()} for cubin, ptx in made]
    listings = _listings(made) if made else []
    return json.dumps([{**reply, "listing": own} for reply, own in zip(replies, listings, strict=True)]).encode()


def gpu_ir(payload: bytes) -> bytes:
    """Compile Triton IR that is known to compile to Triton GPU IR, and reply with that."""
    return _gpu_ir(json.loads(payload)).encode()


def _gpu_ir(request: dict[str, Any]) -> str:
    backend = make_backend(GPUTarget("cuda", request["arch"], 32))
    stages: dict[str, Any] = {}
    options = backend.parse_options(dict(request["options"]))
    backend.add_stages(stages, options, Language.TRITON)
    Path(_file(request)).write_text(request["text"])
    context = _context(request["arch"])
    module = ir.parse_mlir_module(_file(request), context)
    module.context = context
    return with_places(stages["ttgir"](module, {}), backend, options)


def llvm_ir(payload: bytes) -> bytes:
    """Compile a kernel that is known to compile, and reply with its LLVM IR."""
    text: str = _compiled(json.loads(payload)).asm["llir"]
    return text.encode()


def trace(payload: bytes) -> bytes:
    """Compile a kernel once more, with all that Triton says of its passes: see ``passes.read``.

    What compiles is a process of its own: it may be the compiler's last.
    """
    request = json.loads(payload)
    log = Path("log")
    if (pid := os.fork()) == 0:
        _traced(request, log)
    finished = os.waitpid(pid, 0)[1] == 0
    found = passes.read(log.read_text(errors="replace"), request["wanted"])
    return json.dumps({**found, "finished": finished}).encode()


def _traced(request: dict[str, Any], log: Path) -> NoReturn:
    try:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
        os.environ |= {"MLIR_ENABLE_DUMP": "1", "TRITON_LLVM_DEBUG_ONLY": ",".join(passes.TALKATIVE)}
        (_gpu_ir if request["to_gpu_ir"] else _compiled)(request)
        os._exit(0)
    except Exception as error:
        os.write(2, f"\n{error}\n".encode())
    finally:
        os._exit(1)


def _file(request: dict[str, Any]) -> str:
    return f"kernel.{request['level']}"  # where compilation goes on is told by the extension


def _compiled(request: dict[str, Any]) -> Any:
    os.environ["TRITON_CACHE_DIR"] = os.path.abspath("cache")
    cache.triton_key = lambda: ""  # a digest of all of Triton, for a cache that lives as long as this job
    Path(_file(request)).write_text(request["text"])
    return triton.compile(
        _file(request), target=GPUTarget("cuda", request["arch"], 32), options=dict(request["options"])
    )


def _launch(file: str, arch: int, compiled: Any) -> str:
    data = {**compiled.metadata._asdict(), "signature": list(compiled.src.signature.values())}
    if file.endswith("ttgir"):  # the pass that would say how descriptors lie in shared memory has not run
        context = _context(arch)
        data["tensordesc_meta"] = ir.parse_mlir_module(file, context).get_tensordesc_metadata()
    return json.dumps(data, default=vars)


def listing(cubin: Path, ptx: str) -> str:
    """Return the machine code of ``cubin`` as nvdisasm prints it, with lines of ``ptx``; ``""`` if nvdisasm fails.

    Its analysis of the data flow takes a quarter of its time and is needed only where branches lead through a table.
    """
    options = ["-c", "-hex", "-gp", *(() if "brx.idx" in ptx else ("-ndf",))]
    command = [knobs.nvidia.nvdisasm.path, *options, str(cubin)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    _pass_on(f"{done.stderr}error code {done.returncode}")
    return done.stdout


def canonical(payload: bytes) -> bytes:
    """Read IR texts with MLIR's parser, as ``run`` does, and print them, one operation a line; see ``with_places``.

    A text that does not parse is a reply with ``error`` and its index.
    """
    request = json.loads(payload)
    context, backend = _context(request["arch"]), make_backend(GPUTarget("cuda", request["arch"], 32))
    options = backend.parse_options({"enable_fp_fusion": True})
    texts = []
    for i, text in enumerate(request["texts"]):
        try:
            Path("kernel.mlir").write_text(text)
            module = ir.parse_mlir_module("kernel.mlir", context)
            if module.get_int_attr("ttg.num-warps") is None:
                texts.append(str(module))
            else:
                module.context = context
                texts.append(with_places(module, backend, options))
        except (RuntimeError, ValueError) as error:
            return json.dumps({"error": _short(error), "index": i}).encode()
    return json.dumps({"texts": texts}).encode()


def _context(arch: int) -> Any:
    context = ir.context()
    ir.load_dialects(context)
    make_backend(GPUTarget("cuda", arch, 32)).load_dialects(context)
    return context


def _short(error: Exception) -> str:
    text = re.sub(r"/\S*/tmp\w+\.ptx, ", "", str(error))  # a file that is gone by now
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() or "fatal" in line.lower()]
    return "; ".join((telling or lines or [type(error).__name__])[:4])[:1500]


def _does_not_fit(error: Exception) -> bool:
    return isinstance(error, OutOfResources) or "uses too much" in str(error)
