"""Error bounds of the GPU's results where an operation is lowered to an approximation.

The executor computes the exact value; a tolerance may cite these bounds. The instructions are those that Triton 3.6 to
3.9 emit as PTX for sm_90. Sources: the PTX ISA 9.0, sections 9.7.3 (floating-point instructions), and the CUDA
C++ Programming Guide, appendix on mathematical functions (largest errors in units in the last place).
"""

from dataclasses import dataclass, replace

PTX = "PTX ISA, Floating Point Instructions: "
GUIDE = "CUDA C++ Programming Guide, Mathematical Functions"


@dataclass(frozen=True, slots=True)
class Approximation:
    """The error bound of one operation. A result is within it if one of the errors that are not 0 is."""

    operation: str
    """Name in the IR, or libdevice's symbol."""
    element: str
    instruction: str
    source: str
    ulps: float = 0.0
    """Units in the last place of the true result."""
    relative: float = 0.0
    absolute: float = 0.0
    where: str = ""
    """The operands that the bound holds for, if not all."""
    flushes: bool = False
    """Whether subnormal operands and results become zeros."""


def _ptx(
    operation: str,
    instruction: str,
    name: str,
    *,
    ulps: float = 0.0,
    relative: float = 0.0,
    absolute: float = 0.0,
    where: str = "",
    flushes: bool = False,
) -> Approximation:
    return Approximation(operation, "f32", instruction, PTX + name, ulps, relative, absolute, where, flushes)


_INSTRUCTIONS = (
    _ptx("math.exp2", "ex2.approx.ftz.f32", "ex2", ulps=2, flushes=True),
    _ptx("math.exp", "mul.f32; ex2.approx.f32", "ex2", ulps=2, where="plus |x| * 2**-24 relative, from the product"),
    _ptx("math.sqrt", "sqrt.approx.ftz.f32", "sqrt", ulps=1, relative=2**-23, flushes=True),
    _ptx("math.rsqrt", "rsqrt.approx.ftz.f32", "rsqrt", ulps=2, relative=2**-22.9, flushes=True),
    _ptx("arith.divf", "div.full.f32", "div", ulps=2),
    _ptx("tt.approx_divf", "div.approx.f32", "div", ulps=2, where="|b| in [2**-126, 2**126]; 0 or NaN above"),
    _ptx("__nv_sqrtf", "sqrt.approx.ftz.f32", "sqrt", ulps=1, relative=2**-23, flushes=True),
    _ptx("__nv_rsqrtf", "rsqrt.approx.ftz.f32", "rsqrt", ulps=2, relative=2**-22.9, flushes=True),
    _ptx("__nv_exp2f", "ex2.approx.ftz.f32", "ex2", ulps=2, flushes=True),
    _ptx("__nv_fast_expf", "mul.f32; ex2.approx.ftz.f32", "ex2", ulps=2, flushes=True, where="plus |x| * 2**-24"),
    _ptx("__nv_fast_exp10f", "mul.f32; ex2.approx.ftz.f32", "ex2", ulps=2, flushes=True, where="plus |x| * 2**-22"),
    _ptx("__nv_fast_log2f", "lg2.approx.ftz.f32", "lg2", relative=2**-22, absolute=2**-22, flushes=True),
    _ptx("__nv_fast_logf", "lg2.approx.ftz.f32; mul.f32", "lg2", relative=2**-22, absolute=2**-21.4, flushes=True),
    _ptx("__nv_fast_log10f", "lg2.approx.ftz.f32; mul.f32", "lg2", relative=2**-22, absolute=2**-24, flushes=True),
    _ptx("__nv_fast_sinf", "sin.approx.ftz.f32", "sin", absolute=2**-20.5, flushes=True, where="|x| <= 2 pi"),
    _ptx("__nv_fast_cosf", "cos.approx.ftz.f32", "cos", absolute=2**-20.5, flushes=True, where="|x| <= 2 pi"),
    _ptx("__nv_fast_fdividef", "div.approx.ftz.f32", "div", ulps=2, flushes=True, where="|b| in [2**-126, 2**126]"),
)

_ULPS: dict[str, tuple[float, float]] = {
    # libdevice's functions of float32 (with an f after the name) and of float64.
    "rsqrt": (2, 1),
    "cbrt": (1, 1),
    "rcbrt": (1, 1),
    "hypot": (3, 2),
    "rhypot": (2, 1),
    "norm3d": (3, 2),
    "rnorm3d": (2, 1),
    "norm4d": (3, 2),
    "rnorm4d": (2, 1),
    "exp": (2, 1),
    "exp2": (2, 1),
    "exp10": (2, 1),
    "expm1": (1, 1),
    "log": (1, 1),
    "log2": (1, 1),
    "log10": (2, 1),
    "log1p": (1, 1),
    "sin": (2, 2),
    "cos": (2, 2),
    "tan": (4, 2),
    "sinpi": (1, 2),
    "cospi": (1, 2),
    "asin": (2, 2),
    "acos": (2, 2),
    "atan": (2, 2),
    "atan2": (3, 2),
    "sinh": (3, 2),
    "cosh": (2, 1),
    "tanh": (2, 1),
    "asinh": (3, 3),
    "acosh": (4, 3),
    "atanh": (3, 2),
    "pow": (4, 2),
    "erf": (2, 2),
    "erfc": (4, 5),
    "erfinv": (2, 5),
    "erfcinv": (4, 6),
    "erfcx": (4, 4),
    "normcdf": (5, 5),
    "normcdfinv": (5, 8),
    "lgamma": (6, 4),
    "tgamma": (5, 10),
    "cyl_bessel_i0": (6, 6),
    "cyl_bessel_i1": (6, 6),
    "j0": (9, 7),
    "j1": (9, 7),
    "y0": (9, 7),
    "y1": (9, 7),
}
_ABSOLUTE: dict[str, tuple[float, float]] = dict.fromkeys(("j0", "j1", "y0", "y1", "jn", "yn"), (2.2e-6, 5e-12))
_WHERE = {"lgamma": "outside of [-10.001, -2.264] (float64: [-23.0001, -2.2637]); larger inside"}
_WHERE["yn"] = "float32: ceil(2 + 2.5 n) ulps for |x| < n, else absolute; float64: for x > 1.5 n"
_WHERE["jn"] = "for n = 128"
_WHERE |= dict.fromkeys(("j0", "j1", "y0", "y1"), "ulps for |x| < 8, else absolute")
_LOWERED = ("exp", "exp2", "log", "log2", "sin", "cos", "erf", "rsqrt")
"""Operations of the IR that become calls of libdevice where none of the instructions above implements them."""


def _of_libdevice() -> tuple[Approximation, ...]:
    made = []
    covered = {entry.operation for entry in _INSTRUCTIONS}
    for name in _ULPS.keys() | _ABSOLUTE.keys():
        for i, (element, suffix) in enumerate((("f32", "f"), ("f64", ""))):
            symbol = f"__nv_{name}{suffix}"
            bound = Approximation(
                symbol,
                element,
                "libdevice",
                GUIDE,
                ulps=_ULPS[name][i] if name in _ULPS else 0.0,
                absolute=_ABSOLUTE[name][i] if name in _ABSOLUTE else 0.0,
                where=_WHERE.get(name, ""),
                flushes=element == "f32",
            )
            if symbol not in covered:
                made.append(bound)
            if name in _LOWERED and f"math.{name}" not in (covered if element == "f32" else ()):
                made.append(replace(bound, operation=f"math.{name}", instruction=symbol))
    return tuple(sorted(made, key=lambda entry: (entry.operation, entry.element)))


APPROXIMATIONS: tuple[Approximation, ...] = _INSTRUCTIONS + _of_libdevice()
"""One entry per operation and element type. Other operations are rounded to nearest once."""
