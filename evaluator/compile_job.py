"""Work on Triton IR text in a process that may crash: to a cubin and what the tools say about it, or to plain text."""

import base64
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import triton
from triton import knobs
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import make_backend
from triton.compiler.errors import CompilationError
from triton.runtime import cache
from triton.runtime.errors import OutOfResources, PTXASError

for _tool in ("ptxas", "ptxas_blackwell", "cuobjdump"):
    getattr(knobs.nvidia, _tool, None)  # asks the tool for its version: here before the fork, once


def run(payload: bytes) -> bytes:
    """The job. A failure of the compiler that it reports itself is a reply with ``error``."""
    request = json.loads(payload)
    os.environ["TRITON_CACHE_DIR"] = os.path.abspath("cache")
    cache.triton_key = lambda: ""  # a digest of all of Triton, for a cache that lives as long as this job
    Path("kernel.ttir").write_text(request["ttir"])
    options = request["options"]
    try:
        compiled = triton.compile("kernel.ttir", target=GPUTarget("cuda", request["arch"], 32), options=options)
    except (RuntimeError, ValueError, AssertionError, CompilationError, OutOfResources, PTXASError) as error:
        return json.dumps({"error": _short(error), "does_not_fit": _does_not_fit(error)}).encode()
    metadata: Any = compiled.metadata
    Path("kernel.cubin").write_bytes(compiled.asm["cubin"])
    usage = subprocess.run(
        [knobs.nvidia.cuobjdump.path, "-res-usage", "kernel.cubin"], capture_output=True, text=True, check=True
    )
    reply = {
        "name": metadata.name,
        "ptx": compiled.asm["ptx"],
        "cubin": base64.b64encode(compiled.asm["cubin"]).decode(),
        "usage": usage.stdout,
        "num_warps": metadata.num_warps,
        "shared": metadata.shared,
        "tensor_memory": getattr(metadata, "tmem_size", None) or 0,
    }
    return json.dumps(reply).encode()


def canonical(payload: bytes) -> bytes:
    """The job that reads IR texts with MLIR's parser, as ``run`` does, and prints them, one operation a line.

    A text that does not parse is a reply with ``error`` and its index.
    """
    request = json.loads(payload)
    backend = make_backend(GPUTarget("cuda", request["arch"], 32))
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    texts = []
    for i, ttir in enumerate(request["ttirs"]):
        try:
            Path("kernel.ttir").write_text(ttir)
            texts.append(str(ir.parse_mlir_module("kernel.ttir", context)))
        except (RuntimeError, ValueError) as error:
            return json.dumps({"error": _short(error), "index": i}).encode()
    return json.dumps({"ttirs": texts}).encode()


def _short(error: Exception) -> str:
    text = re.sub(r"/\S*/tmp\w+\.ptx, ", "", str(error))  # a file that is gone by now
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() or "fatal" in line.lower()]
    return "; ".join((telling or lines or [type(error).__name__])[:4])[:1500]


def _does_not_fit(error: Exception) -> bool:
    return isinstance(error, OutOfResources) or "uses too much" in str(error)
