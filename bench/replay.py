"""Replay scripted conversations with the tools of a step, and count the tokens that a model would be sent.

python -m bench.replay ANSWERS

No model is asked: the calls are written below, and no real model's conversation was recorded. Their results are real:
those of the judge on the Hopper seed of mha and on variants of it, kept in the folder ANSWERS, which may be shared by
releases to be compared. ``rewriting`` is made after the one long conversation with a model that was seen: 30% sources
written again (41% here), 22% notes, 22% profiles. ``editing`` does the same work with edits and views of functions.
``long`` goes on with eight more sources, as the default budget of evaluations allows. ``stuck`` asks for the working
source over and over. Tokens are estimated as budgets do, at four characters each. Cached is what a request begins with
as the one before did; the price is that of docs/agent.md's example: $1.25 and $0.125 per million tokens of input and of
cached input, $10 per million of output.
"""

import argparse
import json
import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import pairwise, product, takewhile
from pathlib import Path
from typing import Any

from avo.agents.agentic import Agentic
from avo.agents.desk import FakeDesk
from avo.agents.model import ChatMessage, Reply, ScriptedModel, ToolCall, estimated_tokens
from avo.agents.operator import Brief
from avo.agents.settings import ModelSettings, Settings
from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import get_problem
from avo.evaluator.evaluation import Evaluation
from avo.evaluator.evaluators import AnyRequest, Evaluator
from avo.evaluator.judges import judge_process
from avo.evaluator.target import Target
from avo.evaluator.targets import get_target
from avo.knowledge_base.library import Library
from avo.lineage_db.decision import Decision, Ruling
from avo.lineage_db.records import Attempt, AttemptSummary, Version
from avo.search.run import utc_now
from avo.seeds import seed_source
from bench.tables import Table, head, row

TARGET, SUITE, PROBLEM = "h100", "quick", "mha"
SEED = seed_source(PROBLEM, "hopper")
NOTES = (
    "gluon-basics", "gluon-hopper", "gluon-product", "gluon-layouts", "gluon-groups", "wgmma", "specialise", "pingpong",
    "exp2", "polynomial", "rescale", "lazy", "correction-overlap", "skew", "reorder", "tails", "persistent",
    "registers", "reading-sass", "critical-resource",
)  # fmt: skip
WHY = {
    "hypothesis": "Smaller tiles of keys leave registers for another stage, which hides the latency of TMA.",
    "expected": "+2% on both cases",
}
SUBMIT = ("submit", {"attempt": None, "change": "none", "seen": "no variant was faster"})
USD_PER_MTOK = (1.25, 0.125, 10.0)
"""Prices of input, cached input and output."""
Call = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Count:
    """What a conversation takes."""

    tokens: int
    """Of all requests with their replies."""
    cached: int
    """Those among them that an endpoint has cached."""
    usd: float
    last: int
    """Tokens of the last request."""
    kinds: Counter[str]
    """Characters of the last request by what they are."""


class Keeping(Evaluator):
    """A judge whose answers are kept in a folder, by what was asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._judge: Evaluator | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def target(self) -> Target:
        """What it judges for."""
        return get_target(TARGET)

    def ask(self, request: AnyRequest) -> Any:
        """Return the answer, as it was given the first time."""
        kept = self._folder / sha256(repr(request).encode()).hexdigest()
        if not kept.exists():
            self._judge = self._judge or judge_process(TARGET, SUITE)
            kept.write_bytes(pickle.dumps(self._judge.ask(request)))
        return pickle.loads(kept.read_bytes())

    def close(self) -> None:
        """End the judge, if one was needed."""
        if self._judge is not None:
            self._judge.close()


def variant(block_n: int, stages: int) -> str:
    """Return the seed with other tiles of keys and another number of stages."""
    source = SEED.replace("block_m, block_n = 64, 128", f"block_m, block_n = 64, {block_n}")
    return source.replace("STAGES=2,", f"STAGES={stages},")


def brief(judge: Evaluator) -> Brief:
    """Return the brief of a step whose run has the seed and eight attempts that failed."""
    now, made = utc_now(), dict[int, Attempt]()

    def attempt(source: str, change: str, found: Evaluation, hypothesis: str = "", **more: Any) -> Attempt:
        candidate = Candidate(PROBLEM, source)
        known = next((each for each in made.values() if each.digest == candidate.digest), None)
        if known is None:
            number = len(made) + 1
            parents = (0,) if number > 1 else ()
            known = made[number] = Attempt(
                number, 1, number, candidate.digest, source, change, parents, found, now, now, hypothesis, **more
            )
        return known

    def evaluate(candidate: Candidate, *, change: str, hypothesis: str = "", **more: Any) -> Attempt:
        return attempt(candidate.source, change, judge.evaluate(candidate), hypothesis)

    seed = attempt(SEED, "seed hopper", judge.evaluate(Candidate(PROBLEM, SEED)))
    no_gain = Decision(Ruling.NO_GAIN, "-1.2% in the mean over version 0, +1% is needed", -0.012)
    for number in range(8):
        attempt(
            f"{SEED}# {number}\n", f"attend waits for {number} products later, and the loads follow", seed.evaluation,
            f"{WHY['hypothesis']} It was written down as attempt {number}. (expected: +2%)", decision=no_gain,
        )  # fmt: skip
    history = [
        AttemptSummary(
            each.id, each.step_id, each.digest, each.plan_digest, each.status, each.evaluation.geomean_tflops, "",
            each.change, each.parents, 0 if each.id == 1 else None, 1.0, now, each.hypothesis, each.decision,
        )
        for each in made.values()
    ]  # fmt: skip
    desk = replace(FakeDesk(attempts=made).desk, inspect=judge.inspect)
    return Brief(
        problem=get_problem(PROBLEM), target=judge.target, suite=SUITE, seed=1,
        versions=(Version(1, 0, (), now, seed),), attempts=history, knowledge=Library.load(),
        evaluate=evaluate, profile=judge.profile, desk=desk,
    )  # fmt: skip


def _edit(old: str, new: str) -> Call:
    return "edit_source", {"old": old, "new": new}


def _evaluate(change: str) -> list[Call]:
    return [("check", {}), ("evaluate", {**WHY, "change": change})]


def _write(block_n: int, stages: int) -> Call:
    return "write_source", {"source": variant(block_n, stages)}


def _conversation(*, rewriting: bool) -> Iterator[list[Call]]:
    """Yield the calls of each reply."""
    notes: list[Call] = [("read_note", {"id": each}) for each in NOTES]
    look: Call = ("view_source", {} if rewriting else {"function": "attention"})
    yield [("read_lineage", {}), ("read_version", {"version": 0})]
    yield [("search_knowledge", {"query": query}) for query in ("gluon hopper wgmma", "stages tma barrier")]
    yield notes[: len(notes) // 2]
    yield [("profile", {})]
    if rewriting:
        yield [_write(64, 2), *_evaluate("tiles of 64 keys")]
    else:
        yield [_edit("block_m, block_n = 64, 128", "block_m, block_n = 64, 64"), *_evaluate("tiles of 64 keys")]
    yield [("profile", {}), ("profile", {"show": "sass"})]
    yield notes[len(notes) // 2 :]
    yield [_edit("STAGES=2,", "STAGES=3,"), *_evaluate("3 stages")]
    yield [("profile", {})]
    if rewriting:
        yield [_write(64, 4), *_evaluate("4 stages")]
    else:
        yield [_edit("STAGES=3,", "STAGES=4,"), *_evaluate("4 stages")]
    yield [("profile", {"case": "8k-full"}), ("read_lineage", {})]
    yield [look, ("read_version", {"version": 0}), *notes[:2]]
    yield [SUBMIT]


def _long() -> Iterator[list[Call]]:
    """Yield the calls of a step that writes its source for each of its twelve evaluations."""
    yield from list(_conversation(rewriting=True))[:-1]
    for number, (block_n, stages) in enumerate(product((32, 16), (2, 3, 4, 5))):
        yield [_write(block_n, stages), *_evaluate(f"tiles of {block_n} keys, {stages} stages")]
        yield [("profile", {}), *([("profile", {"show": "sass"})] if number % 3 == 0 else [])]
    yield [SUBMIT]


def _stuck() -> Iterator[list[Call]]:
    yield [("profile", {})]
    for _ in range(100):
        yield [("view_source", {})]
    yield [SUBMIT]


def conversations() -> dict[str, list[list[Call]]]:
    """Return the calls of each reply, by the conversation's name."""
    return {
        "rewriting": list(_conversation(rewriting=True)),
        "editing": list(_conversation(rewriting=False)),
        "long": list(_long()),
        "stuck": list(_stuck()),
    }


def replayed(judge: Evaluator, replies: Sequence[list[Call]], messages: list[ChatMessage] | None = None) -> Count:
    """Return what a conversation takes. The last request's messages are added to ``messages``."""
    numbers = iter(range(10**6))
    script = [
        Reply("", tuple(ToolCall(f"c{next(numbers)}", name, json.dumps(given)) for name, given in calls))
        for calls in replies
    ]
    model = ScriptedModel(*script)
    specs: list[Any] = []
    ask = model.complete

    def complete(messages: Sequence[ChatMessage], tools: Sequence[Any]) -> Reply:
        specs[:] = tools
        return ask(messages, tools)

    model.complete = complete  # type: ignore[method-assign]
    settings = Settings((ModelSettings(name="script", context_tokens=10**6),))
    Agentic(settings, lambda *_: model).vary(brief(judge))
    tools = estimated_tokens(json.dumps(specs))
    sent = [tools + estimated_tokens(json.dumps(messages)) for messages in model.asked]
    if messages is not None:
        messages += model.asked[-1]
    said = sum(estimated_tokens(json.dumps(reply.message)) for reply in script)
    cached = [tools + _cached(*pair) for pair in pairwise(model.asked)]
    amounts = sum(sent) - sum(cached), sum(cached), said
    usd = sum(tokens * price / 1e6 for tokens, price in zip(amounts, USD_PER_MTOK, strict=True))
    return Count(sum(amounts), sum(cached), usd, sent[-1], _kinds(model.asked[-1]))


def _cached(before: Sequence[ChatMessage], now: Sequence[ChatMessage]) -> int:
    """Return the tokens of the messages with which two requests begin."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(before, now, strict=False))
    return sum(estimated_tokens(json.dumps(message)) for message, _ in same)


def _kinds(messages: Sequence[ChatMessage]) -> Counter[str]:
    """Return the characters of a conversation by what they are."""
    found, names = Counter[str](), dict[str, str]()
    for message in messages:
        for call in message.get("tool_calls", ()):
            names[call["id"]] = call["function"]["name"]
            kind = "sources" if names[call["id"]] in ("write_source", "edit_source") else "rest"
            found[kind] += len(call["function"]["arguments"])
        name = names.get(message.get("tool_call_id", ""), "")
        kind = {"read_note": "notes", "search_knowledge": "notes", "profile": "profiles"}.get(name, "rest")
        kind = "sources" if name in ("view_source", "edit_source", "write_source", "read_version") else kind
        found[kind] += len(str(message.get("content") or ""))
    return found


def table(judge: Evaluator) -> Table:
    """Tokens of each conversation."""
    kinds = ("sources", "notes", "profiles", "rest")
    yield from head("conversation", "tokens of all requests", "cached", "price", "tokens of the last", *kinds)
    for name, replies in conversations().items():
        count = replayed(judge, replies)
        shares = (f"{count.kinds[kind] / count.kinds.total():.0%}" for kind in kinds)
        cost = f"${count.usd:.3f}"
        yield row(name, f"{count.tokens:,}", f"{count.cached:,}", cost, f"{count.last:,}", *shares)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path, metavar="ANSWERS", help="folder that keeps the judge's answers")
    with Keeping(parser.parse_args().answers) as kept:
        print("\n".join(table(kept)))
