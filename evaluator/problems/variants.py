"""Cases of dense attention and of decoding with windows, soft caps, sinks or packed sequences, and the mistakes usual
there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING

from avo.evaluator.problem import Case, Wrong
from avo.evaluator.problems.dense import attend, logits, small, softmax_scale, views
from avo.evaluator.problems.selection import SelectedCase
from avo.evaluator.problems.visible import DenseCase, dense, with_sink
from avo.evaluator.setting import Setting

if TYPE_CHECKING:
    import torch

_WINDOWS = (64, 20, 130, 65, 127, 0, 1)
"""Windows of small cases that have none of their own, in turn: whole tiles, within one, across, at edges, all, one key.
"""
_HEADS = {True: ((8, 2), (4, 1), (6, 3)), False: ((2, 2), (2, 2), (1, 1))}
"""Query heads and KV heads of small cases, for problems that share KV heads and for others."""
_CAPS = (6, 20, 90)
"""Soft caps of small cases besides the setting's own."""
_LARGE, _CAP_OF_LARGE = ("large", "rising", "step", "negative"), 400
"""Input makers whose scores have to be as large as without a cap, so that exponentials overflow, and the cap there."""
_SEQUENCES = ((3, False), (1, True), (4, False), (2, True), (5, True), (4, True))
"""How many sequences the small cases of selected attention have, in turn, and whether these are equally long."""


def small_variants(setting: Setting, cases: tuple[DenseCase, ...], *, grouped: bool) -> tuple[DenseCase, ...]:
    """Return small cases with what a setting has: its own ones and those of the problem, ``cases``, that are ``far``;
    for sinks and soft caps alone those of the problem.
    """
    apart = tuple(replace(case, causal=True) for case in cases if case.far)
    if setting.packed:
        cases = tuple(
            replace(case, batch=1, sequences=sequences, even=even)
            for case, sequences, even in (*_packed(grouped=grouped), *((case, 2, False) for case in apart))
        )
        if setting.window:
            cases = _in_turn(tuple(case for case in cases if case.causal))
    elif setting.window:
        cases = tuple(replace(case, window=window) for case, window in _windowed(grouped=grouped))
        cases += tuple(replace(case, window=20) for case in apart)
    return _capped(setting, [replace(case, sinks=True) if setting.sinks else case for case in cases])


def small_decodes(setting: Setting, cases: Iterable[DenseCase]) -> tuple[DenseCase, ...]:
    """Return the small cases of decoding with the windows and sinks of a setting."""
    cases = _in_turn(cases) if setting.window else cases
    return _capped(setting, [replace(case, sinks=setting.sinks) for case in cases])


def _capped(setting: Setting, cases: Iterable[DenseCase]) -> tuple[DenseCase, ...]:
    """Return small cases with the soft cap of a setting and others, in turn."""
    if not setting.softcap:
        return tuple(cases)
    caps = cycle((setting.softcap, *_CAPS))
    return tuple(replace(case, softcap=float(_CAP_OF_LARGE if case.inputs in _LARGE else next(caps))) for case in cases)


def small_selected(setting: Setting, cases: Iterable[SelectedCase]) -> tuple[SelectedCase, ...]:
    """Return the small cases of selected attention with the forced blocks, sinks and packed sequences of a setting."""
    if setting.packed:
        cases = tuple(
            replace(case, batch=1, sequences=sequences, even=even)
            for case, (sequences, even) in zip(cases, cycle(_SEQUENCES))
        )
    return tuple(replace(case, sinks=setting.sinks, local=setting.local) for case in cases)


def suite_variants(setting: Setting, suites: Mapping[str, tuple[DenseCase, ...]]) -> dict[str, tuple[DenseCase, ...]]:
    """Return the cases of suites with what a setting has.

    Packed cases have as many tokens, in twice as many sequences as there are in the batch. All cases with a window are
    causal. With layers that see all keys as well as layers with a window, each case is there twice: as it is named,
    and with ``-global`` behind its name.
    """
    return {suite: tuple(_of_suite(setting, cases)) for suite, cases in suites.items()}


def _of_suite(setting: Setting, cases: tuple[DenseCase, ...]) -> list[DenseCase]:
    made = [*cases]
    if setting.sinks:
        made = [replace(case, sinks=True) for case in made]
    if setting.softcap:
        made = [replace(case, softcap=float(setting.softcap)) for case in made]
    if setting.local:
        made = [replace(case, local=True) for case in made if isinstance(case, SelectedCase)]
    if setting.packed:
        made = [
            replace(case, batch=1, q_len=case.batch * case.q_len, kv_len=case.batch * case.kv_len,
                    sequences=2 * case.batch)
            for case in made
        ]  # fmt: skip
    if setting.window:
        causal = [replace(case, name=case.name.replace("-full", "-causal"), causal=True) for case in made]
        made = [replace(case, window=setting.window) for case in {case.name: case for case in causal}.values()]
        if setting.everywhere:
            made += [replace(case, name=f"{case.name}-global", window=0) for case in made]
    return made


def _in_turn(cases: Iterable[DenseCase]) -> tuple[DenseCase, ...]:
    return tuple(replace(case, window=_WINDOWS[i % len(_WINDOWS)]) for i, case in enumerate(cases))


def _windowed(*, grouped: bool) -> tuple[tuple[DenseCase, int], ...]:
    """Return correctness cases with windows within a tile, across tiles, at their edges, and longer than all keys."""
    a, b, c = _HEADS[grouped]
    return (
        (small("within-a-tile", *a, 100, 100, True, "edge"), 20),
        (small("across-tiles", *b, 333, 333, True, "dominant", "bshd"), 130),
        (small("whole-tiles", *a, 256, 256, True, "edge"), 64),
        # As for mha, 1 and 126 are where a bound meets the edge of a tile; windows end there, too.
        (small("edge-1", *b, 128, 129, True, "edge", scale=0.11), 65),
        (small("edge-126", *a, 128, 254, True, "edge"), 127),
        (small("fewer-queries", *c, 77, 333, True, "dominant", "mixed"), 128),
        (small("one-key", *a, 70, 70, True, "normal"), 1),
        (small("one-query", *b, 1, 130, True, "outliers"), 50),
        (small("short", *a, 5, 5, True, "normal"), 3),
        (small("longer-than-all", *c, 150, 150, True, "large"), 400),
        (small("all-keys", *a, 161, 161, True, "outliers", "padded"), 0),
        (small("constant", *a, 129, 257, True, "constant", scale=0.07), 100),
        (small("negative", *c, 100, 300, True, "negative"), 90),
        (small("rising", *a, 70, 321, True, "rising"), 200),
        (small("step", 6 if grouped else 3, 3, 70, 640, True, "step"), 600),
        (small("long", *c, 700, 700, True, "normal"), 256),
    )


def _packed(*, grouped: bool) -> tuple[tuple[DenseCase, int, bool], ...]:
    """Return correctness cases with their numbers of sequences, and whether these are equally long."""
    a, b, c = _HEADS[grouped]
    return (
        (small("one-full", *a, 130, 257, False, "dominant"), 1, True),
        (small("one-causal", *b, 128, 129, True, "edge", scale=0.11), 1, True),
        (small("tiles-causal", *a, 256, 256, True, "dominant"), 4, True),
        (small("uneven-causal", *b, 333, 333, True, "dominant", "bshd"), 4, False),
        (small("uneven-full", *a, 193, 321, False, "dominant", "bshd"), 3, False),
        (small("more-keys-causal", *a, 200, 454, True, "edge", "mixed"), 3, False),
        (small("empty-causal", *c, 5, 60, True, "normal", "padded"), 9, True),
        (small("one-query-each", *a, 6, 300, True, "outliers"), 6, True),
        (small("one-query-each-full", *b, 6, 300, False, "outliers"), 6, True),
        (small("large-causal", *c, 255, 255, True, "large", "bshd"), 2, False),
        (small("constant-causal", *a, 129, 257, True, "constant", scale=0.07), 3, False),
        (small("negative-full", *c, 100, 300, False, "negative"), 2, True),
        (small("rising-full", *a, 140, 321, False, "rising"), 2, False),
        (small("step-full", 6 if grouped else 3, 3, 70, 640, False, "step"), 1, False),
        (small("long-causal", *c, 900, 900, True, "normal", "bshd"), 5, False),
    )


def diagnose_variant(case: Case, inputs: "Mapping[str, torch.Tensor]", wrong: Wrong) -> str:
    """Return which of the mistakes that are usual with windows, caps, sinks and packed sequences explains the rows."""
    from avo.evaluator.problems.diagnosis import explains

    view, of = views(case, inputs), dense(case)
    v = view["v"][wrong.batch, wrong.head // (case.heads // case.kv_heads)].double()
    # The right result is the first: a mistake that changes little explains no more than it does.
    guesses: list[tuple[str, DenseCase, bool, Mapping[str, torch.Tensor]]] = [("", of, True, inputs)]
    if of.window:
        guesses += [
            ("windows have one key too many", replace(of, window=of.window + 1), True, inputs),
            ("windows have one key too few", replace(of, window=of.window - 1), True, inputs),
            ("the window is ignored", replace(of, window=0), True, inputs),
        ]
    if of.sinks:
        guesses += [
            ("the sinks are left out", of, True, {}),
            ("the sinks are scaled as scores are", of, True, {"sinks": inputs["sinks"] * softmax_scale(case)}),
        ]
    if of.softcap:
        unscaled = replace(of, softcap=of.softcap * softmax_scale(case))
        guesses += [
            ("scores are not capped", replace(of, softcap=0.0), True, inputs),
            ("scores are capped before they are scaled", unscaled, True, inputs),
        ]
    if of.sequences:
        guesses.append(("queries see the keys of the sequences before theirs", of, False, inputs))
    errors: dict[str, float] = {}
    for text, guessed, apart, taken in guesses:
        scores = logits(guessed, view, wrong.batch, wrong.head, wrong.rows, apart=apart)
        out, lse, _ = attend(*with_sink(scores, v, taken, wrong.head), view["q"].dtype)
        off = (wrong.values["out"] - out).norm() / out.norm(), (wrong.values["lse"] - lse).abs().max()
        errors[text] = max(map(float, off))
    best = min(errors, key=lambda text: errors[text])
    return best if explains(errors[best], errors[""]) else ""
