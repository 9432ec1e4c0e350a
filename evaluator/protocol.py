"""The judge's wire format: one JSON object a line, requests in, verdicts out, in order.

<- {"ready": "h100"}                                        once, when requests are taken
-> {"id": 1, "problem": "mha", "source": "..."}
<- {"id": 1, "evaluation": {"status": "correct", ...}}      or   {"id": 1, "error": "..."}
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from evaluator.candidate import Candidate
from evaluator.errors import EvaluatorError, EvaluatorUnavailable
from evaluator.evaluation import Evaluation


class MalformedRequest(EvaluatorError):
    """A line is not a request; the message says what is."""


@dataclass(frozen=True, slots=True)
class Request:
    """One candidate to judge."""

    id: int
    candidate: Candidate

    def line(self) -> str:
        """The request as a line of JSON, without its end."""
        return json.dumps({"id": self.id, "problem": self.candidate.problem, "source": self.candidate.source})


def requests(lines: Iterable[str]) -> Iterator[Request | MalformedRequest]:
    """Yield each line as a request, or as what is wrong with it; blank lines are passed over."""
    for line in lines:
        if line.strip():
            yield _request(line)


def _request(line: str) -> Request | MalformedRequest:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        return MalformedRequest(f"not JSON: {error}")
    form = {"id": int, "problem": str, "source": str}
    if not isinstance(data, dict) or any(type(data.get(key)) is not kind for key, kind in form.items()):
        return MalformedRequest('a request is an object with "id" (a number), "problem" and "source" (texts)')
    return Request(data["id"], Candidate(data["problem"], data["source"]))


def ready(target: str) -> str:
    """Return the line that says that a judge for ``target`` takes requests."""
    return json.dumps({"ready": target})


def answer(request: Request, evaluation: Evaluation) -> str:
    """Return the line that answers ``request``."""
    return json.dumps({"id": request.id, "evaluation": evaluation.to_json()})


def failure(request_id: int | None, message: str) -> str:
    """Return the line that says why there is no verdict."""
    return json.dumps({"id": request_id, "error": message})


def verdict(request: Request, line: str) -> Evaluation:
    """Return the evaluation in an answer to ``request``; raise ``EvaluatorUnavailable`` when it holds none."""
    try:
        data = json.loads(line)
        if data.get("error"):
            raise EvaluatorUnavailable(data["error"])
        if data["id"] != request.id:
            raise EvaluatorUnavailable(f"the judge answered request {data['id']} instead of {request.id}")
        return Evaluation.from_json(data["evaluation"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EvaluatorUnavailable(f"the judge's answer cannot be read: {error!r}") from error
