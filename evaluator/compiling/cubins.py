"""Several cubins as one, for nvdisasm alone: it takes a fifth of a second to start, and reads one file.

What is put together has the code of each and the lines that it is from; it cannot be loaded. The layout is that of ELF
for 64 bits (System V ABI, chapter 4). What is needed of NVIDIA's own sections was read off cubins: the lower 24 bits of
``sh_info`` of a section of code are the number of its function's symbol.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATIONS = {b".rel": struct.Struct("<QQ"), b".rela": struct.Struct("<QQq")}
"""By how the names of their sections begin: cubins for compute capabilities below 9 have them without an addend."""
_SHT_PROGBITS, _SHT_SYMTAB, _SHT_STRTAB, _SHT_NOBITS = 1, 2, 3, 8
_STT_FUNC = 2
_LINES, _PTX, _CODE = b".nv_debug_line_sass", b".nv_debug_ptx_txt", b".text."
_INFO = b".nv.info."
_SIZED, _BRANCH_TARGETS = 4, 0x34
"""Format and number of the attribute that says where a branch with a computed target leads: offsets in the code. Others
have numbers of symbols.
"""
_TITLE = re.compile(r"^//-+ (\S+)\s+-+$", re.MULTILINE)
"""The line of a listing before each section."""


@dataclass(frozen=True)
class _Section:
    name: bytes
    type: int = 0
    flags: int = 0
    link: int = 0
    info: int = 0
    align: int = 1
    entry_bytes: int = 0
    body: bytes = b""


@dataclass(frozen=True)
class _Symbol:
    name: bytes
    info: int
    other: int
    section: int
    value: int
    size: int


@dataclass
class _Whole:
    """What was put together so far."""

    code: list[_Section] = field(default_factory=list)
    infos: list[tuple[int, _Section]] = field(default_factory=list)
    """What is known of code, with its index in ``code``."""
    symbols: list[_Symbol] = field(default_factory=list)
    lines: bytearray = field(default_factory=bytearray)
    relocated: _Section | None = None
    """The section of a cubin that relocates the lines."""
    relocations: list[tuple[int, int, int, tuple[int, ...]]] = field(default_factory=list)
    """Offset in the lines, index in ``symbols``, type, addend if there are any."""
    ptx: bytes = b""


def together(cubins: Sequence[bytes]) -> bytes:
    """Return a file that nvdisasm lists as ``apart`` expects it. Raises ``ValueError`` where one is no cubin."""
    whole = _Whole()
    try:
        for number, cubin in enumerate(cubins):
            _add(whole, _sections(cubin), _suffix(number).encode())
        return _written(whole, _HEADER.unpack_from(cubins[0]))
    except (struct.error, IndexError, StopIteration, KeyError) as error:
        raise ValueError(f"no cubin: {error!r}") from error


def apart(listing: str, count: int) -> list[str]:
    """Return the listing of the code of each of ``count`` cubins that are ``together``.

    They differ from those of the cubins alone in the numbers of labels and the width of columns.
    """
    _, *parts = _TITLE.split(listing)
    listings = []
    for number in range(count):
        suffix = _suffix(number)
        own = [body for title, body in zip(parts[::2], parts[1::2], strict=True) if title.endswith(suffix)]
        listings.append("".join(own).replace(suffix, ""))
    return listings


def _suffix(number: int) -> str:
    """Return what the names of a cubin's symbols and sections get, so that they differ from those of others."""
    return f".cubin{number}"


def _sections(cubin: bytes) -> list[_Section]:
    header = _HEADER.unpack_from(cubin)
    offset, count, names = header[6], header[12], header[13]
    rows = [_SECTION.unpack_from(cubin, offset + _SECTION.size * i) for i in range(count)]
    bodies = [b"" if row[1] == _SHT_NOBITS else cubin[row[4] : row[4] + row[5]] for row in rows]
    return [
        _Section(_string(bodies[names], row[0]), row[1], row[2], row[6], row[7], row[8], row[9], body)
        for row, body in zip(rows, bodies, strict=True)
    ]


def _add(whole: _Whole, sections: Sequence[_Section], suffix: bytes) -> None:
    names = next(each.body for each in sections if each.name == b".strtab")
    symbols = next(each.body for each in sections if each.type == _SHT_SYMTAB)
    places = {}
    for index, section in enumerate(sections):
        if section.name.startswith(_CODE):
            places[index] = len(whole.code)
            whole.code.append(replace(section, name=section.name + suffix))
    for section in sections:
        if section.name.startswith(_INFO):
            body = b"".join(_branch_targets(section.body))
            whole.infos.append((places[section.info], replace(section, name=section.name + suffix, body=body)))
    numbers = {}
    for number, (name, info, other, index, value, size) in enumerate(_SYMBOL.iter_unpack(symbols)):
        if index in places:
            numbers[number] = len(whole.symbols)
            text = _string(names, name)
            whole.symbols.append(_Symbol(text and text + suffix, info, other, places[index], value, size))
    for section in sections:
        if section.name in {kind + _LINES for kind in _RELOCATIONS}:
            whole.relocated = section
            for at, info, *addend in _relocation(section).iter_unpack(section.body):
                of, kind = divmod(info, 2**32)
                whole.relocations.append((len(whole.lines) + at, numbers[of], kind, tuple(addend)))
        elif section.name == _PTX:  # it only has to have the lines that are named
            whole.ptx = max(whole.ptx, section.body, key=lambda body: body.count(b"\0"))
    for section in sections:
        if section.name == _LINES:
            whole.lines += section.body


def _written(whole: _Whole, header: tuple[int, ...]) -> bytes:
    fixed = 7  # sections before those of code
    ordered = sorted(range(len(whole.symbols)), key=lambda i: whole.symbols[i].info >> 4)  # local ones first
    numbers = {old: new + 1 for new, old in enumerate(ordered)}
    local = 1 + sum(symbol.info >> 4 == 0 for symbol in whole.symbols)
    strings, table = bytearray(1), bytearray(_SYMBOL.size)
    for symbol in (whole.symbols[i] for i in ordered):
        place = _placed(strings, symbol.name)
        table += _SYMBOL.pack(place, symbol.info, symbol.other, fixed + symbol.section, symbol.value, symbol.size)
    relocated = whole.relocated or _Section(b".rela" + _LINES)
    relocations = b"".join(
        _relocation(relocated).pack(at, numbers[of] << 32 | kind, *addend) for at, of, kind, addend in whole.relocations
    )
    functions = {symbol.section: numbers[i] for i, symbol in enumerate(whole.symbols) if symbol.info & 15 == _STT_FUNC}
    sections = [
        _Section(b""),
        _Section(b".shstrtab", _SHT_STRTAB),
        _Section(b".strtab", _SHT_STRTAB, body=bytes(strings)),
        _Section(b".symtab", _SHT_SYMTAB, link=2, info=local, align=8, entry_bytes=_SYMBOL.size, body=bytes(table)),
        _Section(_LINES, _SHT_PROGBITS, body=bytes(whole.lines)),
        replace(relocated, link=3, info=4, body=relocations),
        _Section(_PTX, _SHT_PROGBITS, body=whole.ptx),
        *(
            replace(section, link=3, info=section.info & 0xFF000000 | functions[place])
            for place, section in enumerate(whole.code)
        ),
        *(replace(section, link=3, info=fixed + place) for place, section in whole.infos),
    ]
    assert len(sections) == fixed + len(whole.code) + len(whole.infos)
    titles = bytearray(1)
    places = [_placed(titles, section.name) for section in sections]
    sections[1] = replace(sections[1], body=bytes(titles))
    data, rows = bytearray(_HEADER.size), bytearray()
    for place, section in zip(places, sections, strict=True):
        data += bytes(-len(data) % max(1, section.align))
        rows += _SECTION.pack(
            place, section.type, section.flags, 0, len(data), len(section.body), section.link, section.info,
            section.align, section.entry_bytes,
        )  # fmt: skip
        data += section.body
    data += bytes(-len(data) % 8)
    data[: _HEADER.size] = _HEADER.pack(*header[:5], 0, len(data), *header[7:10], 0, header[11], len(sections), 1)
    return bytes(data + rows)


def _branch_targets(info: bytes) -> Iterator[bytes]:
    """Yield those of the attributes of a section that say where branches lead."""
    at = 0
    while at < len(info):
        kind, attribute, size = struct.unpack_from("<BBH", info, at)
        end = at + 4 + (size if kind == _SIZED else 0)
        if (kind, attribute) == (_SIZED, _BRANCH_TARGETS):
            yield info[at:end]
        at = end


def _relocation(section: _Section) -> struct.Struct:
    return _RELOCATIONS[section.name.removesuffix(_LINES)]


def _string(table: bytes, place: int) -> bytes:
    return table[place : table.index(b"\0", place)]


def _placed(table: bytearray, text: bytes) -> int:
    place = len(table)
    table += text + b"\0"
    return place
