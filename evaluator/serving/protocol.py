"""The judge's wire format: one JSON object a line, requests in, answers out, in order.

<- {"ready": "h100", "version": 3, "target": {"arch": 90, ...}}        once, when requests are taken
-> {"id": 1, "problem": "mha", "source": "..."}                        judge it
-> {"id": 2, "problem": "mha", "source": "...", "incumbent": {"source": "...", "alpha": 0.01}}    against another
<- {"id": 2, "evaluation": {"status": "correct", ...}}
-> {"id": 3, "problem": "mha", "source": "...", "held_out": true}      judge it on the suite that no operator is shown
-> {"id": 4, "problem": "mha", "source": "...", "profile": {"case": "8k-full"}}      explain it; null: every case
<- {"id": 4, "profiles": [...]}  or, of a faulty candidate,  {"id": 4, "fault": {"status": ..., "message": ...}}
-> {"id": 5, "problem": "mha", "source": "...", "inspect": {"look": "check"}}        see ``inspection``
<- {"id": 5, "findings": {...}}
<- {"id": 5, "error": "..."}                                           instead of any answer: why there is none
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from evaluator.candidate import Candidate, Incumbent
from evaluator.errors import EvaluatorError, EvaluatorUnavailable
from evaluator.evaluation import Evaluation, Fault
from evaluator.inspection import Findings, Inspection, Look
from evaluator.target import Target

if TYPE_CHECKING:
    from evaluator.performance import Profile

VERSION = 3
"""Of this format and of what the answers mean. Judges and those who ask them must have the same."""
_SHOWN = 60
"""Characters of a line that is quoted."""


class MalformedRequest(EvaluatorError):
    """A line is not a request; the message says what is."""


@dataclass(frozen=True, slots=True)
class Request:
    """One candidate to judge."""

    id: int
    candidate: Candidate
    incumbent: Incumbent | None = None
    held_out: bool = False
    """Whether to judge it on the suite ``HELD_OUT`` instead of the judge's own."""

    def line(self) -> str:
        """The request as a line of JSON, without its end."""
        data = _request_data(self.id, self.candidate)
        if self.incumbent:
            data["incumbent"] = {"source": self.incumbent.candidate.source, "alpha": self.incumbent.alpha}
        if self.held_out:
            data["held_out"] = True
        return json.dumps(data)


@dataclass(frozen=True, slots=True)
class ProfileRequest:
    """One candidate to explain."""

    id: int
    candidate: Candidate
    case: str | None
    """The benchmark case; None for all."""

    def line(self) -> str:
        """The request as a line of JSON, without its end."""
        return json.dumps(_request_data(self.id, self.candidate) | {"profile": {"case": self.case}})


@dataclass(frozen=True, slots=True)
class InspectRequest:
    """One look."""

    id: int
    inspection: Inspection

    def line(self) -> str:
        """The request as a line of JSON, without its end."""
        asked = asdict(self.inspection)
        problem, source = asked.pop("problem"), asked.pop("source")
        return json.dumps(_request_data(self.id, Candidate(problem, source)) | {"inspect": asked})


class _Inspect(msgspec.Struct, forbid_unknown_fields=True):
    """``Inspection`` without what a request says elsewhere."""

    look: Look
    suite: str | None = None
    case: str | None = None


AnyRequest: TypeAlias = Request | ProfileRequest | InspectRequest


def _request_data(request_id: int, candidate: Candidate) -> dict[str, Any]:
    return {"id": request_id, "problem": candidate.problem, "source": candidate.source}


def requests(lines: Iterable[str]) -> Iterator[AnyRequest | MalformedRequest]:
    """Yield each line as a request, or as what is wrong with it; blank lines are passed over."""
    for line in lines:
        if line.strip():
            yield _request(line)


def _request(line: str) -> AnyRequest | MalformedRequest:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        return MalformedRequest(f"not JSON: {error}")
    if not _has(data, {"id": (int,), "problem": (str,), "source": (str,)}):
        return MalformedRequest('a request is an object with "id" (a number), "problem" and "source" (texts)')
    candidate = Candidate(data["problem"], data["source"])
    incumbent, profile, look = data.get("incumbent"), data.get("profile"), data.get("inspect")
    if look is not None:
        try:
            asked = msgspec.convert(look, _Inspect)
        except ValueError:
            looks = ", ".join(Look)
            return MalformedRequest(
                f'"inspect" is an object with "look" (one of {looks}), and maybe "suite" and "case"'
            )
        inspection = Inspection(asked.look, candidate.problem, candidate.source, asked.suite, asked.case)
        return InspectRequest(data["id"], inspection)
    held_out = data.get("held_out", False)
    if not isinstance(held_out, bool) or (held_out and (incumbent, profile) != (None, None)):
        return MalformedRequest('"held_out" is true or false, and goes without "incumbent" and "profile"')
    if profile is not None:
        if incumbent is not None or not _has(profile, {"case": (str, type(None))}):
            return MalformedRequest('"profile" is an object with "case" (a text or null), and goes without "incumbent"')
        return ProfileRequest(data["id"], candidate, profile["case"])
    if incumbent is None:
        return Request(data["id"], candidate, held_out=held_out)
    if not _has(incumbent, {"source": (str,), "alpha": (int, float)}) or not 0 < incumbent["alpha"] < 1:
        return MalformedRequest('"incumbent" is an object with "source" (a text) and "alpha" (between 0 and 1)')
    other = Candidate(candidate.problem, incumbent["source"])
    return Request(data["id"], candidate, Incumbent(other, incumbent["alpha"]))


def _has(data: object, form: Mapping[str, tuple[type, ...]]) -> bool:
    return isinstance(data, dict) and all(key in data and type(data[key]) in kinds for key, kinds in form.items())


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
        raise EvaluatorUnavailable(f"the judge is there for target {name!r}, not {target!r}")
    try:
        return msgspec.convert(data["target"], Target)
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluatorUnavailable(f"the judge does not say what its target is: {error}") from error


def answer(request: Request, evaluation: Evaluation) -> str:
    """Return the line that answers ``request``."""
    return json.dumps({"id": request.id, "evaluation": evaluation.to_json()})


def explanation(request: ProfileRequest, profiles: "tuple[Profile, ...] | Fault") -> str:
    """Return the line that answers ``request``."""
    if isinstance(profiles, Fault):
        return json.dumps({"id": request.id, "fault": asdict(profiles)})
    return json.dumps({"id": request.id, "profiles": [asdict(profile) for profile in profiles]})


def seen(request: InspectRequest, findings: Findings) -> str:
    """Return the line that answers ``request``."""
    data = asdict(replace(findings, evaluation=None))
    data["evaluation"] = findings.evaluation and findings.evaluation.to_json()
    return json.dumps({"id": request.id, "findings": data})


def failure(request_id: int | None, message: str) -> str:
    """Return the line that says why there is no answer."""
    return json.dumps({"id": request_id, "error": message})


def verdict(request: Request, line: str) -> Evaluation:
    """Return the evaluation in an answer to ``request``; raise ``EvaluatorUnavailable`` when it holds none."""
    data = _answered(request, line)
    try:
        return Evaluation.from_json(data["evaluation"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvaluatorUnavailable(f"the judge's answer cannot be read: {error!r}") from error


def profiles(request: ProfileRequest, line: str) -> "tuple[Profile, ...] | Fault":
    """Return the profiles in an answer to ``request``; raise ``EvaluatorUnavailable`` when it holds none."""
    from evaluator.performance.profile import Profile

    data = _answered(request, line)
    try:
        if "fault" in data:
            return msgspec.convert(data["fault"], Fault)
        return msgspec.convert(data["profiles"], tuple[Profile, ...])
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluatorUnavailable(f"the judge's answer cannot be read: {error!r}") from error


def findings(request: InspectRequest, line: str) -> Findings:
    """Return the findings in an answer to ``request``; raise ``EvaluatorUnavailable`` when it holds none."""
    data = _answered(request, line)
    try:
        return msgspec.convert(data["findings"], Findings)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvaluatorUnavailable(f"the judge's answer cannot be read: {error!r}") from error


def _answered(request: AnyRequest, line: str) -> dict[str, Any]:
    try:
        data = json.loads(line)
        failed, request_id = data.get("error"), data["id"]
    except (ValueError, KeyError, AttributeError, RecursionError):
        raise EvaluatorUnavailable(f"the judge's answer cannot be read: {line.strip()[:_SHOWN]!r}") from None
    if failed:
        raise EvaluatorUnavailable(str(failed))
    if request_id != request.id:
        raise EvaluatorUnavailable(f"the judge answered request {request_id!r} instead of {request.id}")
    return data  # type: ignore[no-any-return]
