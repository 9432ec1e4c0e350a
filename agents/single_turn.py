"""The operator ``single_turn``: works like FunSearch and AlphaEvolve, for comparison.

The framework samples a parent and inspirations, the model answers once with a diff, and the result is evaluated as is.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from avo.agents.agentic import choose
from avo.agents.briefing import learnt, source_to_adapt
from avo.agents.conversation import MESSAGE
from avo.agents.errors import BudgetSpent, CandidateTaken
from avo.agents.memory import matter_at_hand
from avo.agents.model import CHARS_PER_TOKEN, ChatMessage, Reply
from avo.agents.operator import Brief, Proposal
from avo.agents.prompts import render
from avo.agents.relay import MakeModel, chat_models
from avo.agents.settings import Settings
from avo.agents.task import told
from avo.agents.tools.editing import difference
from avo.agents.tools.sources import exemplars, named
from avo.agents.tools.tables import cut, evaluation, fitting, short, verdict
from avo.evaluator.catalogue import kind_of
from avo.knowledge_base.note import Kind
from avo.lineage_db.records import Attempt, Submission, Version

_PARENT_DECAY = 0.6
"""Weight of a version as parent, relative to the next newer version: the newest is the best."""
_INSPIRATIONS = 2
_FAILURES = 5
_DIFF_CHARS = 6_000
_NOTES = 4
_SEARCHED = 20
"""Number of passages that notes are taken from: others describe API, which one that answers once cannot look up."""
_SHARE = 0.1
"""Largest share of a model's context for notes, and again for a kernel of other origin."""
_BLOCK = re.compile(r"<{5,} SEARCH\n(.*?)\n?={5,}\n(.*?)\n?>{5,} REPLACE", re.DOTALL)
_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)
_SAID = re.compile(r"^[\s*#-]*(hypothesis|change|expected)[\s*]*:[\s*]*(.+)$", re.IGNORECASE | re.MULTILINE)


class BadAnswer(Exception):
    """An answer from which no source can be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's proposal."""

    source: str
    hypothesis: str
    change: str
    expected: str


class SingleTurn:
    """Asks one of its models once per step."""

    name = "single_turn"

    def __init__(self, settings: Settings, make_model: MakeModel | None = None) -> None:
        self._settings = settings
        self._make_model = make_model or chat_models(settings)

    def vary(self, brief: Brief) -> Proposal:
        """Evaluate the model's answer. An unusable or faulty answer is not repaired."""
        rng = random.Random(brief.seed)
        chosen = choose(self._settings.models, rng, brief.paid)
        parent, inspirations = sample(brief.versions, brief.asked, rng)
        most = int(_SHARE * chosen.context_tokens * CHARS_PER_TOKEN)
        messages: list[ChatMessage] = [
            {"role": "system", "content": render("single_turn_system", **told(brief))},
            {"role": "user", "content": _question(brief, parent, inspirations, _exemplar(brief, rng, most), most)},
        ]
        for message in messages:
            brief.desk.record(MESSAGE, {"message": message})
        try:
            reply = self._make_model(chosen, brief.desk, rng).complete(messages, ())
        except BudgetSpent as spent:
            return Proposal(None, str(spent))
        brief.desk.record(MESSAGE, {"message": reply.message})
        return _judged(brief, parent, inspirations, reply)


def sample(versions: Sequence[Version], asked: Version | None, rng: random.Random) -> tuple[Version, list[Version]]:
    """Return a parent and a few other versions, oldest first; the parent is ``asked``, or mostly one of the newest."""
    weights = [_PARENT_DECAY ** (len(versions) - 1 - place) for place in range(len(versions))]
    parent = asked or rng.choices(versions, weights)[0]
    others = [version for version in versions if version is not parent]
    chosen = rng.sample(others, min(_INSPIRATIONS, len(others)))
    return parent, sorted(chosen, key=lambda version: version.number)


def read_answer(text: str, parent: str, entry: str) -> Answer:
    """Apply an answer to the source ``parent``; raise ``BadAnswer``."""
    said = {name.lower(): words.strip() for name, words in reversed(_SAID.findall(text))}
    missing = [name for name in ("hypothesis", "change", "expected") if name not in said]
    if missing:
        raise BadAnswer(f"the answer does not say its {', '.join(missing)}")
    blocks = _BLOCK.findall(text)
    source = _edited(parent, blocks) if blocks else _whole(text, entry)
    if source == parent:
        raise BadAnswer("the answer changes nothing")
    return Answer(source, said["hypothesis"], said["change"], said["expected"])


def _edited(source: str, blocks: Sequence[tuple[str, str]]) -> str:
    for number, (old, new) in enumerate(blocks, start=1):
        if (count := source.count(old)) != 1 or not old.strip():
            raise BadAnswer(f"the passage of block {number} occurs {count} times in the parent")
        source = source.replace(old, new)
    return source


def _whole(text: str, entry: str) -> str:
    sources: list[str] = [block for block in _FENCED.findall(text) if f"def {entry}(" in block]
    if not sources:
        raise BadAnswer(f"the answer has neither SEARCH/REPLACE blocks nor a source that defines {entry}")
    return max(sources, key=len)


def _exemplar(brief: Brief, rng: random.Random, most: int) -> tuple[str, str]:
    """Return name and source of one of the kernels that ``agent`` can read, which is none of the versions and has
    ``most`` characters at most; empty texts where there is none.
    """
    known = {version.attempt.digest for version in brief.versions}
    for name in rng.sample(names := exemplars(brief), len(names)):
        source = named(brief, name)
        if len(source) <= most and brief.candidate(source).digest not in known:
            return name, source
    return "", ""


def _notes(brief: Brief, parent: Version, most: int) -> str:
    """Return the notes of the knowledge base on the parent, what limits it and the latest failures."""
    kind = kind_of(brief.problem.name)
    about = f"{kind} {matter_at_hand(parent, brief.attempts)}"
    found = brief.knowledge.search(about, architecture=brief.target.arch, problem=kind, limit=_SEARCHED)
    notes = [note.whole for note in found if note.kind is Kind.NOTE][:_NOTES]
    return cut("\n\n".join(fitting(notes, most, "\n\n")), most) if notes else ""


def _question(
    brief: Brief, parent: Version, inspirations: Sequence[Version], exemplar: tuple[str, str], most: int
) -> str:
    failed = [attempt for attempt in brief.attempts if not attempt.geomean_tflops][-_FAILURES:]
    found = parent.attempt.evaluation
    return render(
        "single_turn",
        target=brief.target,
        parent=parent,
        parent_scores=f"{verdict(found, {})}\n{evaluation(found)}",
        inspirations=inspirations,
        diffs=[
            cut(
                difference(parent.attempt.source, other.attempt.source, "parent", f"version {other.number}"),
                _DIFF_CHARS,
            )
            for other in inspirations
        ],
        better=[
            (each, cut(_difference(parent, brief.desk.attempt(each.attempt_id)), _DIFF_CHARS))
            for each in brief.unresolved[:_INSPIRATIONS]
        ],
        failures=[short(f"{attempt.change}: {attempt.status.words}: {attempt.message}", 300) for attempt in failed],
        memory=learnt(brief),
        interventions=brief.interventions,
        transferred_source=source_to_adapt(brief),
        exemplar=exemplar,
        notes=_notes(brief, parent, most),
    )


def _difference(parent: Version, other: Attempt) -> str:
    return difference(parent.attempt.source, other.source, "parent", f"attempt {other.id}")


def _judged(brief: Brief, parent: Version, inspirations: Sequence[Version], reply: Reply) -> Proposal:
    try:
        answer = read_answer(reply.text, parent.attempt.source, brief.problem.entry)
    except BadAnswer as error:
        return Proposal(None, f"{error}{f' (it was {reply.problem})' if reply.problem else ''}")
    try:
        attempt = brief.evaluate(
            brief.candidate(answer.source),
            change=answer.change,
            parents=(parent.number,),
            hypothesis=f"{answer.hypothesis} (expected: {answer.expected})",
        )
    except (BudgetSpent, CandidateTaken) as error:
        return Proposal(None, str(error))
    outcome = verdict(attempt.evaluation, {f"version {parent.number}": parent.attempt.evaluation.own_tflops})
    if attempt.decision:
        outcome += f"; {attempt.decision.answer}"
    if not attempt.evaluation.correct:
        return Proposal(None, f"{answer.change}: {outcome}")
    submission = Submission(attempt.id, answer.change, answer.hypothesis, answer.expected, outcome)
    return Proposal(attempt, f"{answer.change}: {outcome}", submission)
