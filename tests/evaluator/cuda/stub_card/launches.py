"""Launches as the driver gets them: every parameter is read, compared with the plan, and the kernel is executed.

A parameter's size is what the cubin's ``.nv.info`` section says, of which cuobjdump shows the attribute
EIATTR_KPARAM_INFO: where its value lies in the launch says nothing about the argument that it should be.
"""

import ctypes
import json
import struct
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from avo.evaluator import executor
from avo.evaluator.binary import Binary
from avo.evaluator.cuda.device import LoadedKernel
from avo.evaluator.cuda.triton_device import TritonDevice
from avo.evaluator.plan import Argument, Descriptor, KernelIR, Pointer, Scalar
from tests.evaluator.cuda.stub_card.runtime import CAPTURING, STREAM, StubCuda

ILLEGAL_ADDRESS, HANGS = 700, -1
_KPARAM_INFO, _HAS_SIZE = 0x17, 4
_FORMATS = {"i1": "?", "i8": "b", "i16": "h", "i32": "i", "i64": "q", "f16": "e", "f32": "f", "f64": "d"}
_MAP = struct.Struct("<I4B8xQ5Q4Q5H")  # ``Encoded`` of libcuda.c
_MARK, _TF32 = 0x4D41504D, 11
_ITEM_BYTES = (1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4)  # of CUtensorMapDataType
_SWIZZLED = (0, 32, 64, 128)
_EARLY, _CLUSTER = 6, [4, 5]  # programmatic stream serialization; cluster dimension, scheduling policy preference


class Config(ctypes.Structure):
    """``CUlaunchConfig`` of cuda.h."""

    _fields_ = (
        *((name, ctypes.c_uint) for name in ("x", "y", "z", "threads", "threads_y", "threads_z", "shared")),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("attribute_count", ctypes.c_uint),
    )


class _Attribute(ctypes.Structure):
    """``CUlaunchAttribute`` of cuda.h."""

    _fields_ = (("id", ctypes.c_int), ("value", ctypes.c_uint64 * 8))


_OnLoad = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
_OnLaunch = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(Config), ctypes.POINTER(ctypes.c_void_p)
)


@dataclass(frozen=True)
class Module:
    """A kernel that is loaded."""

    ir: KernelIR
    binary: Binary

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What Triton's launcher is told."""
        found: Mapping[str, Any] = json.loads(self.binary.launch)
        return found


@dataclass(frozen=True)
class Asked:
    """What the plan wants launched."""

    grid: tuple[int, int, int]
    arguments: Sequence[Argument]
    buffers: Sequence[torch.Tensor]


class StubDevice(TritonDevice):
    """The device as it is, which also says what should arrive at the driver before it does."""

    def __init__(self, cuda: StubCuda) -> None:
        self._modules: dict[int, Module] = {}
        self._loading: Module | None = None
        self._asked: Asked | None = None
        self._given: torch.Tensor | None = None
        self._callbacks = _OnLoad(self._loaded), _OnLaunch(self._launched)
        cuda.driver.stub_connect(*self._callbacks)
        torch.set_num_threads(1)
        super().__init__(cuda, flush_bytes=2**20)

    def load(self, ir: KernelIR, binary: Binary) -> LoadedKernel:
        """See ``TritonDevice.load``."""
        self._loading = Module(ir, binary)
        launch = super().load(ir, binary)

        def told(grid: tuple[int, int, int], arguments: Sequence[Argument], buffers: Sequence[torch.Tensor]) -> None:
            self._asked, self._given = Asked(grid, arguments, buffers), None
            launch(grid, arguments, buffers)

        return told

    def _allocate(self, size: int, alignment: int, stream: int | None) -> torch.Tensor:
        self._given = super()._allocate(size, alignment, stream)
        return self._given

    def _loaded(self, handle: int, image: int) -> None:
        if self._loading is not None:  # otherwise it is the empty kernel
            assert ctypes.string_at(image, len(self._loading.binary.cubin)) == self._loading.binary.cubin
            self._modules[handle] = self._loading

    def _launched(self, handle: int, name: bytes, config: Any, params: Any) -> int:
        """Return what the launch function returns: 0, or an error where something else arrives than was asked for."""
        try:
            module, asked, cuda = self._modules[handle], self._asked, self._cuda
            assert asked is not None
            arguments = self._arrived(module, asked, name.decode(), config.contents, params)
            if cuda.graph is None:
                self._execute(module, asked, arguments)
            else:
                cuda.graph.append(lambda: self._execute(module, asked, arguments))
        except Exception as error:
            traceback.print_exc()
            return self._cuda.driver.stub_refuse(b"%s", f"{type(error).__name__}: {error}".encode())
        return 0

    def _arrived(self, module: Module, asked: Asked, name: str, config: Config, params: Any) -> list[Argument]:
        metadata, cuda = module.metadata, self._cuda
        clusters = metadata.get("num_ctas", 1)
        _same("kernel", name, module.ir.name)
        _same("grid", (config.x, config.y, config.z), (asked.grid[0] * clusters, *asked.grid[1:]))
        _same("threads", (config.threads, config.threads_y, config.threads_z), (32 * metadata["num_warps"], 1, 1))
        _same("shared memory", config.shared, metadata["shared"])
        attributes = (_Attribute * config.attribute_count).from_address(config.attributes or 0)
        asked_for = [_EARLY] * bool(metadata.get("launch_pdl")) + _CLUSTER * (clusters > 1)
        _same("launch attributes", [attribute.id for attribute in attributes], asked_for)
        _same("stream", config.stream, STREAM if cuda.graph is None else CAPTURING)
        sizes = parameter_sizes(module.binary.cubin, name)
        kinds = metadata["signature"]
        _same("number of parameters", len(sizes), len(kinds) + 2)
        raw = [ctypes.string_at(params[i], size) for i, size in enumerate(sizes)]
        arrived = [decoded(*each, asked.buffers) for each in zip(raw, kinds, strict=False)]
        for i, (found, wanted) in enumerate(zip(arrived, asked.arguments, strict=True)):
            if isinstance(found, Descriptor):
                arrived[i] = found = _whole(raw[i], found, wanted)
            _same(f"parameter {i}, of type {kinds[i]}", found, _as(kinds[i], wanted))
        scratch, profile = (struct.unpack("<Q", each)[0] for each in raw[-2:])
        given, bytes_of_one = self._given, metadata["global_scratch_size"]
        _same("scratch", scratch, 0 if given is None else given.data_ptr())
        _same("scratch for profiling", profile, 0)
        if bytes_of_one:
            assert given is not None
            assert given.numel() >= bytes_of_one * config.x * config.y * config.z  # torch's allocator aligns on a GPU
        return arrived

    def _execute(self, module: Module, asked: Asked, arguments: Sequence[Argument]) -> None:
        """Run the kernel in the memory behind its buffers, guards included."""
        memory, args = [], list(arguments)
        for i, flat in enumerate(asked.buffers):
            whole = torch.empty(0, dtype=flat.dtype).set_(flat.untyped_storage())
            memory.append(executor.Allocation(str(i), whole, address=whole.data_ptr()))
        for i, each in enumerate(args):
            if not isinstance(each, Scalar):
                behind = asked.buffers[each.buffer]
                args[i] = replace(each, byte_offset=each.byte_offset + behind.storage_offset() * behind.element_size())
        kernel = executor.load(module.ir.ttir, executor.aliases(args))
        try:
            faults = kernel.run(executor.Launch(memory, args, asked.grid)).faults
        except executor.StuckProgram:
            self._cuda.driver.stub_kernel(HANGS)
        else:
            for fault in faults:
                print(fault.message, file=sys.stderr)
            self._cuda.driver.stub_kernel(ILLEGAL_ADDRESS if faults else 0)


def _same(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise ValueError(f"{what}: {found} arrives where the plan has {wanted}")


def _as(kind: str, wanted: Argument) -> Argument:
    """Return an argument as a parameter of its type holds it."""
    if not isinstance(wanted, Scalar):
        return wanted
    if kind == "bf16":
        return decoded(struct.pack("<f", float(wanted.value))[2:], kind, ())  # Triton's launcher does not round
    form = "<" + _FORMATS[kind]
    if kind.startswith("f"):
        return Scalar(struct.unpack(form, struct.pack(form, float(wanted.value)))[0])
    bits = 8 * struct.calcsize(form)
    return decoded((int(wanted.value) % 2**bits).to_bytes(bits // 8, "little"), kind, ())


def decoded(raw: bytes, kind: str, buffers: Sequence[torch.Tensor]) -> Argument:
    """Return the argument that a parameter's bytes are."""
    if kind.startswith("*"):
        return Pointer(*_located(struct.unpack("<Q", raw)[0], buffers))
    if "tensordesc" not in kind:
        if kind == "bf16":
            return Scalar(struct.unpack("<f", b"\0\0" + raw)[0])
        return Scalar(struct.unpack("<" + _FORMATS[kind], raw)[0])
    mark, element, rank, _, fill, address, *rest = _MAP.unpack_from(raw)
    _same("mark of a tensor map", mark, _MARK)
    buffer, offset = _located(address, buffers)
    strides = [stride // _ITEM_BYTES[element] for stride in rest[5 : 4 + rank]]
    return Descriptor(
        buffer,
        offset,
        tuple(rest[:rank][::-1]),
        (*strides[::-1], 1),
        tuple(rest[9 : 9 + rank][::-1]),
        "nan" if fill else "zero",
        rounds_tf32=element == _TF32,
    )


def _whole(raw: bytes, found: Descriptor, wanted: Argument) -> Descriptor:
    """Return a descriptor of the plan's blocks: a tensor map has the boxes that these are copied in."""
    assert isinstance(wanted, Descriptor)
    _, element, _, swizzle, *_ = _MAP.unpack_from(raw)
    most = [256] * (len(wanted.block_shape) - 1) + [min(256, _SWIZZLED[swizzle] // _ITEM_BYTES[element] or 256)]
    boxes = tuple(map(min, wanted.block_shape, most))
    _same("box of a tensor map", found.block_shape, boxes)
    return replace(found, block_shape=wanted.block_shape)


def _located(address: int, buffers: Sequence[torch.Tensor]) -> tuple[int, int]:
    for i, flat in enumerate(buffers):
        storage = flat.untyped_storage()
        if storage.data_ptr() <= address < storage.data_ptr() + storage.nbytes():
            return i, address - flat.data_ptr()
    raise ValueError(f"address {address:#x} is in no buffer")


def parameter_sizes(cubin: bytes, kernel: str) -> list[int]:
    """Return the bytes of each parameter of a kernel, in order."""
    (start,), (each, count, names) = struct.unpack_from("<Q", cubin, 40), struct.unpack_from("<HHH", cubin, 58)
    sections = [struct.unpack_from("<IIQQQQ", cubin, start + i * each) for i in range(count)]  # ``Elf64_Shdr``
    named = {cubin[sections[names][4] + s[0] :].split(b"\0", 1)[0].decode(): s for s in sections}
    *_, offset, size = named[f".nv.info.{kernel}"]
    data, found, at = cubin[offset : offset + size], {}, 0
    while at < size:
        form, attribute, length = struct.unpack_from("<BBH", data, at)
        if (form, attribute) == (_HAS_SIZE, _KPARAM_INFO):
            _, ordinal, _, bits = struct.unpack_from("<IHHI", data, at + 4)
            found[ordinal] = bits >> 18
        at += 4 + (length if form == _HAS_SIZE else 0)
    return [found[i] for i in sorted(found)]
