"""Looks at variants of a source side by side: those of one call, and the tests of directions."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

from avo.agents.operator import Brief, Variation
from avo.agents.tools import tables
from avo.agents.tools.arguments import BASE, BadCall, ExploreDirections, TryVariants
from avo.agents.tools.editing import Passage, edited, passages, variants_of
from avo.agents.tools.workbench import WORKING, Base, Varied, Workbench
from avo.evaluator.inspection import Findings
from avo.evaluator.resolution import lead
from avo.evaluator.target import ScoreKind
from avo.lineage_db.directions import Direction, Evidence


def tried(brief: Brief, bench: Workbench, asked: TryVariants, base: Base) -> str:
    """Return a table of variants of ``base``, and keep them on the workbench.

    Raises ``BadCall``, ``LooksSpent`` and ``EvaluatorUnavailable``.
    """
    found, faults = _look_at(brief, bench, base, variants_of(asked))
    return "\n".join(_told(brief, found, faults))


def explored(brief: Brief, bench: Workbench, asked: ExploreDirections, base: Base) -> str:
    """Look at the tests of all directions together and return their table; memory keeps them with what was seen.

    Raises like ``tried``.
    """
    tests = [(each.name, partial(passages, each)) for each in asked.directions if each.edits or each.patch]
    found, faults, parts = dict[str, Findings](), dict[str, str](), list[str]()
    if tests:
        found, faults = _look_at(brief, bench, base, tests, directions=True)
        parts = _told(brief, found, faults)
    edited_from = f"version {base.parents[0]}" if base.built_on is None else f"attempt {base.built_on}"
    if base.follows is not None:
        edited_from = f"evaluation {base.follows}"
    of = f"the {WORKING} from {edited_from}" if base.name == WORKING else base.name
    kept = [
        Direction(each.name, each.hypothesis, _seen(brief, bench, found, each.name, of)) for each in asked.directions
    ]
    brief.desk.explore(kept)
    untested = ", ".join(each.name for each in kept if not each.evidence)
    parts += [f"Kept without a test: {untested}."] if untested else []
    parts.append(f"{len(kept)} directions are in memory. In this step, follow those that pay.")
    return "\n".join(parts)


def variant(bench: Workbench, name: str) -> str:
    """Return the source of a variant that was looked at last; raise ``BadCall``."""
    varied = bench.varied
    if varied is None or name not in varied.passages:
        known = ", ".join(varied.passages) if varied else "none yet"
        raise BadCall(f"there is no variant {name!r}: those of the last try_variants are {known}")
    return edited(varied.source, varied.passages[name])


def _look_at(
    brief: Brief,
    bench: Workbench,
    base: Base,
    given: Iterable[tuple[str, Callable[[], Iterable[Passage]]]],
    *,
    directions: bool = False,
) -> tuple[dict[str, Findings], dict[str, str]]:
    """Return what is seen of each variant that can be made, the source itself as ``BASE`` first, and why others cannot:
    one whose edits do not fit does not keep the others from being looked at.
    """
    if brief.look is None:
        raise BadCall("variants cannot be looked at here: edit the source and profile it")
    itself = Variation(brief.candidate(base.source), f"the base of variants, {base.name}", base.parents)
    made, kept, faults = {BASE: itself}, dict[str, tuple[Passage, ...]](), dict[str, str]()
    for each, replaced in given:
        try:
            edits = tuple(replaced())
            candidate = brief.candidate(edited(base.source, edits))
        except BadCall as error:
            faults[each] = f"not made: {error}"
        else:
            made[each], kept[each] = Variation(candidate, f"variant {each}", base.parents), edits
    found = dict(zip(made, brief.look(list(made.values())), strict=True))
    direction = bench.direction if base.source == bench.source else ""
    bench.varied = Varied(base.source, kept, directions, direction, base.parents, base.built_on, base.follows)
    return found, faults


def _told(brief: Brief, found: Mapping[str, Findings], faults: Mapping[str, str]) -> list[str]:
    left = brief.desk.left().looks
    parts = [tables.variants(found, faults), "Nothing was executed: numbers may be wrong."]
    return parts if left is None else [*parts, f"{left} looks are left."]


def _seen(brief: Brief, bench: Workbench, found: Mapping[str, Findings], name: str, base: str) -> tuple[Evidence, ...]:
    """Return what a look shows of a direction; nothing where its test was not made. The desk adds the step."""
    if name not in found:
        return ()
    each, of = found[name], found[BASE]
    digest = brief.candidate(variant(bench, name)).digest
    evidence = Evidence(0, ScoreKind.PREDICTED, base=base, digest=digest)
    if each.score is None:
        said = f"{each.fault.status.words}: {each.fault.message}" if each.fault else "no prediction"
        return (replace(evidence, said=said),)
    if of.score is None:
        return (replace(evidence, said="its base has no prediction"),)
    if each.plan_digest is not None and each.plan_digest == of.plan_digest:
        return (replace(evidence, gain=0.0, said="the same kernels"),)
    gain, least = lead(each.score, of.score)
    return (replace(evidence, gain=gain, resolution=least, resolved=abs(gain) > least),)
