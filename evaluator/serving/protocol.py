"""The judge's wire format: one JSON object per line, requests in, answers out, in order.

<- {"ready": "h100", "version": 9, "target": {"arch": 90, ...}}        once, when requests are taken
-> {"id": 1, "problem": "mha", "source": "..."}                        judge it
-> {"id": 2, "problem": "mha", "source": "...", "incumbent": {"source": "...", "alpha": 0.01}}    against another
<- {"id": 2, "evaluation": {"status": "correct", ...}}
-> {"id": 3, "problem": "mha", "source": "...", "held_out": {"plan_digest": "..."}}      verify it, also on shapes that
                                                    no operator is shown; null: there was no evaluation before this
<- {"id": 3, "done": 5, "of": 23, "words": "", "waits": false}         before an answer: a ``Progress``
-> {"id": 4, "problem": "mha", "source": "...", "profile": {"case": "8k-full"}}      explain it; null: every case
<- {"id": 4, "profiles": [...]}  or, for a faulty candidate,  {"id": 4, "fault": {"status": ..., "message": ...}}
-> {"id": 5, "problem": "mha", "source": "...", "inspect": {"look": "check"}}        see ``inspection``
<- {"id": 5, "findings": {...}}
<- {"id": 5, "error": "..."}                                           instead of any answer: why there is none
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import Annotated, Any

import msgspec

from avo.evaluator.candidate import Candidate, Incumbent
from avo.evaluator.errors import EvaluatorError, EvaluatorUnavailable
from avo.evaluator.evaluation import Evaluation, Fault
from avo.evaluator.evaluators import AnyRequest, EvaluateRequest, ProfileRequest, Progress, VerifyRequest
from avo.evaluator.inspection import Findings, Inspection, Look
from avo.evaluator.profile import Profile
from avo.evaluator.target import Target

VERSION = 10
"""Version of this format and of the meaning of answers. A judge and its caller must have the same version."""
_SHOWN = 60
"""Characters of a bad line that a message quotes."""


class MalformedRequest(EvaluatorError):
    """A line is not a request; the message says what a request is."""


def request_line(number: int, request: AnyRequest) -> str:
    """Return a request as a line of JSON, without its end; the answer has its ``number`` too."""
    data: dict[str, Any]
    match request:
        case EvaluateRequest(candidate, incumbent):
            data = {}
            if incumbent:
                data["incumbent"] = {"source": incumbent.candidate.source, "alpha": incumbent.alpha}
        case VerifyRequest(candidate, plan_digest):
            data = {"held_out": {"plan_digest": plan_digest}}
        case ProfileRequest(candidate, case):
            data = {"profile": {"case": case}}
        case Inspection():
            asked = asdict(request)
            candidate = Candidate(asked.pop("problem"), asked.pop("source"))
            data = {"inspect": asked}
    return json.dumps({"id": number, "problem": candidate.problem, "source": candidate.source} | data)


def requests(lines: Iterable[str]) -> Iterator[tuple[int, AnyRequest] | MalformedRequest]:
    """Yield each line as a request with its number, or as what is wrong with it; blank lines are skipped."""
    for line in lines:
        if line.strip():
            yield _request(line)


class _Head(msgspec.Struct):
    id: int
    problem: str
    source: str


class _Inspect(msgspec.Struct, forbid_unknown_fields=True):
    look: Look
    suite: str | None = None
    case: str | None = None
    before: str | None = None


class _HeldOut(msgspec.Struct):
    plan_digest: str | None


class _Progress(msgspec.Struct):
    id: int
    done: int
    of: int
    words: str
    waits: bool


class _Profile(msgspec.Struct):
    case: str | None


class _Incumbent(msgspec.Struct):
    source: str
    alpha: Annotated[float, msgspec.Meta(gt=0, lt=1)]


_PARTS = {
    "inspect": (_Inspect, f'an object with "look" (one of {", ".join(Look)}), and maybe "suite", "case" and "before"'),
    "held_out": (_HeldOut, 'an object with "plan_digest" (a text or null), and goes without "incumbent" and "profile"'),
    "profile": (_Profile, 'an object with "case" (a text or null), and goes without "incumbent"'),
    "incumbent": (_Incumbent, 'an object with "source" (a text) and "alpha" (between 0 and 1)'),
}
"""The parts that a request may have: their types, and what to say of one that is malformed."""


def _request(line: str) -> tuple[int, AnyRequest] | MalformedRequest:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        return MalformedRequest(f"not JSON: {error}")
    try:
        head = msgspec.convert(data, _Head)
    except ValueError:
        return MalformedRequest('a request is an object with "id" (a number), "problem" and "source" (texts)')
    parts: dict[str, Any] = {}
    for name, (kind, _) in _PARTS.items():
        try:
            parts[name] = msgspec.convert(data.get(name), kind | None)
        except ValueError:
            return _malformed(name)
    look, held_out, profile, incumbent = parts.values()
    candidate = Candidate(head.problem, head.source)
    if look:
        return head.id, Inspection(look.look, head.problem, head.source, look.suite, look.case, look.before)
    if held_out and (profile or incumbent):
        return _malformed("held_out")
    if profile and incumbent:
        return _malformed("profile")
    if profile:
        return head.id, ProfileRequest(candidate, profile.case)
    if incumbent:
        other = Candidate(head.problem, incumbent.source)
        return head.id, EvaluateRequest(candidate, Incumbent(other, incumbent.alpha))
    return head.id, VerifyRequest(candidate, held_out.plan_digest) if held_out else EvaluateRequest(candidate)


def _malformed(name: str) -> MalformedRequest:
    return MalformedRequest(f'"{name}" is {_PARTS[name][1]}')


def ready(target: Target) -> str:
    """Return the line that says that a judge for ``target`` takes requests."""
    return json.dumps({"ready": target.name, "version": VERSION, "target": asdict(target)})


def greeting(line: str, target: str) -> Target:
    """Return the target of the judge that wrote ``line`` first; raise ``EvaluatorUnavailable`` unless it is ``target``
    and the judge is of this version.
    """
    try:
        data = json.loads(line)
        name, version = data["ready"], data.get("version")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise EvaluatorUnavailable(
            f"instead of being ready, the judge says {line.strip()[:_SHOWN]!r}: it may write nothing but answers to "
            "its standard output"
        ) from None
    if version != VERSION:
        raise EvaluatorUnavailable(
            f"the judge speaks version {version!r} of the protocol, not {VERSION}: "
            "install the same release on both sides"
        )
    if name != target:
        raise EvaluatorUnavailable(f"the judge is for target {name!r}, not {target!r}")
    try:
        return msgspec.convert(data["target"], Target)
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluatorUnavailable(f"the judge does not say what its target is: {error}") from error


def answer_line(number: int, answer: Evaluation | tuple[Profile, ...] | Fault | Findings) -> str:
    """Return the line that answers request ``number``."""
    data: dict[str, Any]
    match answer:
        case Evaluation():
            data = {"evaluation": answer.to_json()}
        case Findings():
            found = asdict(replace(answer, evaluation=None))
            found["evaluation"] = answer.evaluation and answer.evaluation.to_json()
            data = {"findings": found}
        case Fault():
            data = {"fault": asdict(answer)}
        case _:
            data = {"profiles": [asdict(profile) for profile in answer]}
    return json.dumps({"id": number} | data)


def progress_line(number: int, progress: Progress) -> str:
    """Return the line that says how far the answer to request ``number`` is."""
    return json.dumps({"id": number} | asdict(progress))


def read_progress(number: int, line: str) -> Progress | None:
    """Return how far the answer to request ``number`` is, if ``line`` says that."""
    try:
        found = msgspec.json.decode(line, type=_Progress)
    except msgspec.DecodeError:
        return None
    return Progress(found.done, found.of, found.words, found.waits) if found.id == number else None


def failure_line(number: int | None, message: str) -> str:
    """Return the line that says why there is no answer to request ``number``."""
    return json.dumps({"id": number, "error": message})


def read_answer(number: int, request: AnyRequest, line: str) -> Any:
    """Return the answer to ``request`` that ``line`` holds; raise ``EvaluatorUnavailable`` when it holds none."""
    data = _answered(number, line)
    try:
        if isinstance(request, Inspection):
            return msgspec.convert(data["findings"], Findings)
        if isinstance(request, ProfileRequest):
            if "fault" in data:
                return msgspec.convert(data["fault"], Fault)
            return msgspec.convert(data["profiles"], tuple[Profile, ...])
        return Evaluation.from_json(data["evaluation"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvaluatorUnavailable(f"the judge's answer cannot be read: {error!r}") from error


def _answered(number: int, line: str) -> dict[str, Any]:
    try:
        data = json.loads(line)
        failed, answered = data.get("error"), data["id"]
    except (ValueError, KeyError, AttributeError, RecursionError):
        raise EvaluatorUnavailable(f"the judge's answer cannot be read: {line.strip()[:_SHOWN]!r}") from None
    if failed:
        raise EvaluatorUnavailable(str(failed))
    if answered != number:
        raise EvaluatorUnavailable(f"the judge answered request {answered!r} instead of {number}")
    return data  # type: ignore[no-any-return]
