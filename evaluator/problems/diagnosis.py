"""Diagnosis of wrong numbers: which mistake gives exactly these, so that an author knows what to repair.

Usual mistakes are made on purpose, in float64, from the inputs; one is named only if it explains the output. No verdict
depends on this.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch

from avo.evaluator.problem import Case, Problem, Wrong
from avo.evaluator.problems.dense import viewed

Tensor = torch.Tensor
Guess = tuple[str, Callable[[], Tensor]]
"""A mistake in words, and the output [rows, head_dim], or lse [rows], that it gives."""

_LOG2E = math.log2(math.e)
_TILES = (16, 32, 64, 128, 256)
_MOST_WORK = 2e8
"""Most elements of score matrices that all guesses together compute."""
_MOST_ROWS = 128
_CLOSE, _LSE_CLOSE = 0.012, 1e-4
"""Largest distance of a row from the result of its mistake, relative to its size (rounding to bf16 takes 0.4 percent);
and the same for lse, which is not rounded.
"""
_FITTED_ROWS = 8
"""Smallest number of rows that must agree with a mistake whose size was fitted to the output."""
_MOST = 0.9
"""Share of the rows that must be within ``_CLOSE``."""
_BETTER = 0.25
"""Largest error that may remain, as a share of the error against the reference."""


def explains(error: float, before: float) -> bool:
    """Return whether a mistake explains an output: its result is off by ``error``, the right one by ``before``, both as
    shares.
    """
    return error < min(_CLOSE, _BETTER * before)


def diagnose(problem: Problem, case: Case, inputs: Mapping[str, Tensor], wrong: Wrong) -> str:
    """Return the mistake that explains wrong rows of out, or of lse where out is right: see ``Diagnosing``."""
    head = _Head(problem, case, inputs, _some(wrong))
    if _close(head.out, head.reference):
        return _explaining(head.lse_guesses(), head.found_lse[:, None], head.lse[:, None], _LSE_CLOSE)
    return _explaining(head.guesses(), head.out, head.reference, _CLOSE)


def _some(wrong: Wrong) -> Wrong:
    """Return at most ``_MOST_ROWS`` of the rows."""
    if len(wrong.rows) <= _MOST_ROWS:
        return wrong
    chosen = torch.linspace(0, len(wrong.rows) - 1, _MOST_ROWS, dtype=torch.float64).long()
    values = {name: value[chosen] for name, value in wrong.values.items()}
    return replace(wrong, rows=wrong.rows[chosen], values=values)


def _close(found: Tensor, wanted: Tensor) -> bool:
    return bool(((found - wanted).norm(dim=1) <= _CLOSE * wanted.norm(dim=1)).all())


def _explaining(guesses: Iterator[Guess], found: Tensor, reference: Tensor, close: float) -> str:
    """Return the first guess that is close to ``found``, rows [n, ...], and is infinite or NaN where that is."""
    finite = found.isfinite().all(1)
    before = float((found - reference)[finite].norm())
    for text, make in guesses:
        made = make().view_as(found)
        same = made.isfinite().all(1)
        error = (found - made).norm(dim=1)
        near = torch.where(finite & same, error <= close * made.norm(dim=1), finite == same)
        if float(near.double().mean()) >= _MOST and float(error[finite & same].norm()) <= _BETTER * before:
            return text
    return ""


class _Head:
    """One head, and the mistakes that can be made with it."""

    def __init__(self, problem: Problem, case: Case, inputs: Mapping[str, Tensor], wrong: Wrong) -> None:
        call = problem.call(case)
        self._view = viewed(call.tensors[:3], inputs)
        self._case, self.wrong, self._dtype = case, wrong, self._view["q"].dtype
        self.out, self.found_lse = wrong.values["out"], wrong.values["lse"]
        self._scale = float(dict(call.scalars)["scale"])
        self._here = wrong.batch, wrong.head // (case.heads // case.kv_heads)
        self._q = self._view["q"][wrong.batch, wrong.head, wrong.rows].double()
        self._k, self._v = (self._view[name][self._here].double() for name in "kv")
        self._products = self._q @ self._k.T
        self._seen = self._mask(case.kv_len - case.q_len) if case.causal else self._everything()
        scores = self._scores()
        self._top = scores.amax(1, keepdim=True)
        self._weights = torch.exp(scores - self._top)
        self._sum = self._weights.sum(1, keepdim=True)
        self.lse = (self._top + self._sum.log())[:, 0]
        self.reference = self._weights @ self._v / self._sum

    def _everything(self) -> Tensor:
        return torch.ones(len(self.wrong.rows), self._case.kv_len, dtype=torch.bool)

    def _mask(self, shift: int) -> Tensor:
        return torch.arange(self._case.kv_len) <= self.wrong.rows[:, None] + shift

    def _scores(self, scale: float | None = None, seen: Tensor | None = None) -> Tensor:
        seen = self._seen if seen is None else seen
        return (self._products * (self._scale if scale is None else scale)).masked_fill(~seen, -math.inf)

    def _attend(self, scores: Tensor, v: Tensor | None = None) -> Tensor:
        return torch.softmax(scores, 1) @ (self._v if v is None else v)

    def guesses(self) -> Iterator[Guess]:
        """Yield mistakes that may have given the output, simple ones first."""
        work = 0.0
        for guess in self._all():
            work += self._seen.numel()
            if work > _MOST_WORK:
                return
            yield guess

    def _all(self) -> Iterator[Guess]:
        yield from self._masks()
        yield from self._scales()
        yield from self._endings()
        if not bool(self.out.isfinite().all()):
            return  # Too many mistakes end in NaN.
        yield from self._heads()
        yield from self._keys()
        yield from self._values()
        yield from self._rescaling()
        yield from self._rows()
        for text, scores in self._roundings():
            yield text, lambda s=scores: self._attend(s())  # type: ignore[misc]
        if self._fits():
            yield "every row is off by a factor of its own: look at the sum and what it divides", self._own_factor

    def _masks(self) -> Iterator[Guess]:
        aligned = self._case.kv_len - self._case.q_len
        if not self._case.causal:
            masked = self._mask(aligned)
            yield "the causal mask is applied although causal is False", lambda: self._attend(self._scores(seen=masked))
            return
        guesses = {
            "the causal mask is shifted by one: queries see one key too many": self._mask(aligned + 1),
            "the causal mask is shifted by one: queries do not see their last key": self._mask(aligned - 1),
        }
        if aligned:
            guesses["the causal mask is aligned to the top left, not to the bottom right"] = self._mask(0)
            guesses["the causal mask is shifted the wrong way"] = self._mask(-aligned)
        for tile in (tile for tile in _TILES if tile < self._case.kv_len):
            end = (self.wrong.rows[:, None] + aligned) // tile * tile + tile
            guesses[f"the causal mask is applied to whole tiles of {tile} keys"] = torch.arange(self._case.kv_len) < end
        guesses["the causal mask is ignored"] = self._everything()
        for text, seen in guesses.items():
            yield text, lambda seen=seen: self._attend(self._scores(seen=seen))  # type: ignore[misc]

    def _scales(self) -> Iterator[Guess]:
        usual, given = 1.0 / math.sqrt(self._case.head_dim), self._scale
        guesses = {
            "the scores are not scaled": 1.0,
            "the scores are scaled twice": given**2,
            "exponentials are powers of 2, but the scores are not multiplied by log2(e)": given / _LOG2E,
            "the scores are multiplied by log2(e), but exponentials are powers of e": given * _LOG2E,
            "the scores are multiplied by log2(e) twice": given * _LOG2E**2,
        }
        if not math.isclose(usual, given):
            guesses["the scores are scaled by 1 / sqrt(head_dim), not by the given scale"] = usual
        for text, scale in guesses.items():
            yield text, lambda scale=scale: self._attend(self._scores(scale))  # type: ignore[misc]

    def _endings(self) -> Iterator[Guess]:
        yield "the output is not divided by the sum of exponentials", lambda: self.reference * self._sum
        yield "the output is divided by the sum of exponentials twice", lambda: self.reference / self._sum
        yield "the sum of exponentials is one too large", lambda: self.reference * self._sum / (self._sum + 1)
        yield "all weights are equal, as if queries or keys were zeros", lambda: self._attend(self._scores(0.0))
        yield "the maximum is not subtracted, and exponentials overflow", lambda: _divided(self._tiled(0.0), self._v)
        if self._fits():
            factor = float((self.out * self.reference).sum() / (self.reference**2).sum())
            yield f"the output is off by the factor {factor:.3g}", lambda: self.reference * factor
            scale = self._best_scale()
            yield (
                f"the scores are off by the factor {scale / self._scale:.3g}",
                lambda: self._attend(self._scores(scale)),
            )

    def _fits(self) -> bool:
        return len(self.wrong.rows) >= _FITTED_ROWS and bool(self.out.isfinite().all())

    def _best_scale(self) -> float:
        """Return the scale that comes nearest to the output, between half and twice the right one."""
        best, step = self._scale, 2.0**0.25
        for _ in range(7):
            tried = [best * step**i for i in range(-4, 5)]
            best = min(tried, key=lambda scale: float((self._attend(self._scores(scale)) - self.out).norm()))
            step **= 0.3
        return best

    def _heads(self) -> Iterator[Guess]:
        case, batch = self._case, self.wrong.batch
        for b, h in ((b, h) for b in range(case.batch) for h in range(case.kv_heads) if (b, h) != self._here):
            k, v = (self._view[name][b, h].double() for name in "kv")
            other = f"head {h}" if b == batch else f"batch {b}, head {h}"
            scores = ((self._q @ k.T) * self._scale).masked_fill(~self._seen, -math.inf)
            me = f"head {self.wrong.head}" if b == batch else f"batch {batch}, head {self.wrong.head}"
            yield f"{me} reads the keys and values of {other}", lambda s=scores, v=v: self._attend(s, v)  # type: ignore[misc]
            yield f"{me} reads the keys of {other}", lambda s=scores: self._attend(s)  # type: ignore[misc]
            yield f"{me} reads the values of {other}", lambda v=v: self._attend(self._scores(), v)  # type: ignore[misc]
        for b, h in (
            (b, h) for b in range(case.batch) for h in range(case.heads) if (b, h) != (batch, self.wrong.head)
        ):
            q = self._view["q"][b, h, self.wrong.rows].double()
            scores = ((q @ self._k.T) * self._scale).masked_fill(~self._seen, -math.inf)
            yield f"the queries are those of batch {b}, head {h}", lambda s=scores: self._attend(s)  # type: ignore[misc]

    def _keys(self) -> Iterator[Guess]:
        """Yield runs of keys that are left out or counted twice, and zeros that are counted beyond the last key."""
        q_len, kv_len = self._case.q_len, self._case.kv_len
        if q_len < kv_len:
            yield "only the first q_len keys count, not all kv_len", lambda: self._without(q_len, kv_len)
        for size in (1, 2, *_TILES):
            first = (kv_len - 1) // size * size
            if first == 0:
                break
            yield _named(first, kv_len, "ignored"), lambda n=first: self._without(n, kv_len)  # type: ignore[misc]
        for parity in (0, 1):
            seen = self._seen & (torch.arange(kv_len) % 2 == parity)
            yield "every other key is ignored", lambda seen=seen: self._attend(self._scores(seen=seen))  # type: ignore[misc]
        for tile in _TILES:
            extra = -kv_len % tile
            if extra:
                text = f"{extra} keys beyond the last one count, with scores of 0"
                yield text, lambda n=extra: self._with_zeros(n)  # type: ignore[misc]
        unit = max(16, kv_len // 128 // 16 * 16)
        bounds = [*range(0, kv_len, unit), kv_len]
        parts = [slice(a, b) for a, b in pairwise(bounds)]
        sums = torch.stack([self._weights[:, p].sum(1, keepdim=True) for p in parts]).cumsum(0)
        outs = torch.stack([self._weights[:, p] @ self._v[p] for p in parts]).cumsum(0)
        sums, outs = (torch.cat((torch.zeros_like(t[:1]), t)) for t in (sums, outs))
        best: tuple[float, str, Tensor] | None = None
        for a in range(len(bounds) - 1):
            for verb, sign in (("ignored", -1), ("counted twice", 1)):
                total = self._sum + sign * (sums[a + 1 :] - sums[a])
                mixed = outs[-1] + sign * (outs[a + 1 :] - outs[a])
                made = mixed / total.clamp(min=1e-300)
                errors = (made - self.out).norm(dim=(1, 2))
                b = int(errors.argmin())
                if best is None or float(errors[b]) < best[0]:
                    best = float(errors[b]), _named(bounds[a], bounds[a + 1 + b], verb), made[b]
        if best is not None:
            yield best[1], lambda: best[2]

    def _without(self, first: int, end: int) -> Tensor:
        at = torch.arange(self._case.kv_len)
        return self._attend(self._scores(seen=self._seen & ~((at >= first) & (at < end))))

    def _with_zeros(self, count: int) -> Tensor:
        top = self._top.clamp(min=0.0)
        weights = torch.exp(self._scores() - top)
        return weights @ self._v / (weights.sum(1, keepdim=True) + count * torch.exp(-top))

    def _values(self) -> Iterator[Guess]:
        if self._k.shape == self._v.shape:
            yield "keys are used as values", lambda: self._attend(self._scores(), self._k)
        at = torch.arange(self._case.kv_len)
        last = at == self._case.kv_len - 1
        yield "the last key is read as zeros", lambda: self._attend(self._scores().masked_fill(last & self._seen, 0.0))
        zeroed = self._v.masked_fill(last[:, None], 0.0)
        yield "the last value is read as zeros", lambda: self._attend(self._scores(), zeroed)
        half = self._case.head_dim // 2
        halved = ((self._q[:, :half] @ self._k[:, :half].T) * self._scale).masked_fill(~self._seen, -math.inf)
        yield f"scores are products of the first {half} dimensions only", lambda: self._attend(halved)
        first = self._v[0].expand_as(self._v)
        yield "all values are those of the first key", lambda: self._attend(self._scores(), first)
        for shift in (1, -1, *_TILES):
            moved = self._v[(at - shift).clamp(0, self._case.kv_len - 1)]
            where = f"{abs(shift)} key{'s' if abs(shift) > 1 else ''} {'before' if shift > 0 else 'after'}"
            yield f"weights meet the values of {where}", lambda v=moved: self._attend(self._scores(), v)  # type: ignore[misc]

    def _rescaling(self) -> Iterator[Guess]:
        """Yield mistakes of running maxima, for tiles of several sizes."""
        for tile in _TILES[:4]:
            tops = torch.stack([part.amax(1) for part in self._scores().split(tile, 1)], 1)
            running = tops.cummax(1).values
            at = torch.arange(self._case.kv_len) // tile
            yield (
                "the output is not rescaled when the maximum grows",
                lambda r=running, at=at: self._tiled(r[:, at]) @ self._v / self._sum,  # type: ignore[misc]
            )
            yield (
                "the sum is not rescaled when the maximum grows",
                lambda r=running, at=at: self.reference * self._sum / self._tiled(r[:, at]).sum(1, keepdim=True),  # type: ignore[misc]
            )
            yield (
                "neither output nor sum is rescaled when the maximum grows",
                lambda r=running, at=at: _divided(self._tiled(r[:, at]), self._v),  # type: ignore[misc]
            )
            yield (
                "the maximum of a tile is used, not that of all tiles so far",
                lambda t=tops, at=at: _divided(self._tiled(t[:, at]), self._v),  # type: ignore[misc]
            )

    def _tiled(self, tops: Tensor | float) -> Tensor:
        """Return weights as float32 holds them."""
        return torch.exp((self._scores() - tops).float()).double()

    def _rows(self) -> Iterator[Guess]:
        case = self._case
        q = self._view["q"][self.wrong.batch, self.wrong.head].double()
        for text, source in (
            ("rows are stored in reverse", case.q_len - 1 - self.wrong.rows),
            *((f"row i holds what belongs in row i + {s}", self.wrong.rows + s) for s in (1, *_TILES)),
            *((f"row i holds what belongs in row i - {s}", self.wrong.rows - s) for s in (1, *_TILES)),
        ):
            if bool(((source >= 0) & (source < case.q_len)).all()):
                scores = (q[source] @ self._k.T) * self._scale
                if case.causal:
                    last = source[:, None] + case.kv_len - case.q_len
                    scores = scores.masked_fill(torch.arange(case.kv_len) > last, -math.inf)
                yield text, lambda s=scores: self._attend(s)  # type: ignore[misc]

    def _roundings(self) -> Iterator[Guess]:
        """Yield roundings on the way to the scores, and the scores [rows, kv_len] that they give."""
        name, masked = (
            str(self._dtype).removeprefix("torch."),
            partial(torch.masked_fill, mask=~self._seen, value=-math.inf),
        )
        for what, factor in (("the scale", self._scale), ("the scale times log2(e)", self._scale * _LOG2E)):
            for given in (factor, float(self._rounded(torch.tensor(factor)))):
                back = self._scale / factor
                for whose, q, k in (("queries", given, 1.0), ("keys", 1.0, given)):
                    products = partial(self._rounded_products, q, k)
                    text = f"the {whose} are multiplied by {what} and rounded to {name}: multiply the scores instead"
                    yield text, lambda p=products, back=back: masked(p() * back)  # type: ignore[misc]
        scale = self._scale
        yield f"the products are rounded to {name}", lambda: masked(self._rounded(self._products) * scale)
        yield f"the scores are rounded to {name}", lambda: masked(self._rounded(self._products * scale))

    def _rounded(self, values: Tensor) -> Tensor:
        return values.to(self._dtype).double()

    def _rounded_products(self, of_q: float, of_k: float) -> Tensor:
        return self._rounded(self._q * of_q) @ self._rounded(self._k * of_k).T

    def _own_factor(self) -> Tensor:
        each = (self.out * self.reference).sum(1, keepdim=True) / (self.reference**2).sum(1, keepdim=True)
        return self.reference * each

    def lse_guesses(self) -> Iterator[Guess]:
        """Yield mistakes that may have given lse."""
        sum_, top, lse = self._sum[:, 0], self._top[:, 0], self.lse
        yield "lse is in base 2: multiply it by ln(2)", lambda: lse * _LOG2E
        yield "lse lacks the maximum", lambda: sum_.log()
        yield "lse lacks the logarithm of the sum", lambda: top
        yield "the sum's logarithm is in base 2, the maximum is not", lambda: top + sum_.log2()
        yield "the maximum is in base 2, the sum's logarithm is not", lambda: top * _LOG2E + sum_.log()
        yield "lse is divided by the scale", lambda: lse / self._scale
        yield "lse is multiplied by the scale", lambda: lse * self._scale
        yield "the maximum is not scaled", lambda: top / self._scale + sum_.log()
        yield "the sign of lse is wrong", lambda: -lse
        yield "lse is the sum of exponentials, without the logarithm", lambda: sum_
        if self._case.causal:
            yield "lse ignores the causal mask", lambda: torch.logsumexp(self._scores(seen=self._everything()), 1)
        for batch, head, other in self._other_lse():
            yield f"lse is that of batch {batch}, head {head}", lambda other=other: other  # type: ignore[misc]
        yield "lse is rounded to the type of the inputs", lambda: self._rounded(lse)
        sum_of_rounded = self._rounded(self._weights).sum(1)
        yield "the sum adds up probabilities after they are rounded", lambda: top + sum_of_rounded.log()
        for text, scores in self._roundings():
            yield text, lambda s=scores: torch.logsumexp(s(), 1)  # type: ignore[misc]
        offset = float((self.found_lse - lse).median())
        if len(lse) >= _FITTED_ROWS:
            yield f"lse is off by {offset:.3g} in each of these rows", lambda: lse + offset

    def _other_lse(self) -> Iterator[tuple[int, int, Tensor]]:
        case, mine = self._case, (self.wrong.batch, self.wrong.head)
        for b, h in ((b, h) for b in range(case.batch) for h in range(case.heads) if (b, h) != mine):
            q = self._view["q"][b, h, self.wrong.rows].double()
            k = self._view["k"][b, h // (case.heads // case.kv_heads)].double()
            yield b, h, torch.logsumexp(((q @ k.T) * self._scale).masked_fill(~self._seen, -math.inf), 1)


def _named(first: int, end: int, verb: str) -> str:
    return f"key {first} is {verb}" if end == first + 1 else f"keys {first} to {end - 1} are {verb}"


def _divided(weights: Tensor, v: Tensor) -> Tensor:
    return weights @ v / weights.sum(1, keepdim=True)
