"""The served page as an ASGI application: who may read, which pages there are, and how they are kept current."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from importlib.metadata import version as installed
from secrets import compare_digest
from threading import Lock
from typing import Any, Literal

from markupsafe import Markup
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from avo.errors import AvoError, Incomparable
from avo.evaluator.candidate import Candidate
from avo.evaluator.errors import EvaluatorError
from avo.evaluator.evaluation import Fault
from avo.evaluator.evaluators import Evaluator
from avo.evaluator.profile import Profile
from avo.evaluator.units import TFLOPS, units_of
from avo.lineage_db.errors import StoreError, UnknownAttempt, UnknownRun, UnknownVersion
from avo.lineage_db.records import Attempt, Run
from avo.report.courses import draw_courses
from avo.report.figures import NARROW, WIDE, draw_trajectory
from avo.report.reading import diff_of
from avo.report.render import figures, html_environment, inlined, names_of, policy_of
from avo.serve.reading import ORDERS, Busy, Reader
from avo.watch import listing
from avo.watch.comparison import COSTS, marks
from avo.watch.scores import unit_for
from avo.watch.wording import how_far, spent, spread, standing, under_way, unit, valued

PAGE = 50
"""Rows of a page of attempts or runs."""
_MOST_COMPARED = 8
_MOST_PROFILES = 32
_UNKNOWN = (UnknownRun, UnknownAttempt, UnknownVersion)
MakeProfiler = Callable[[Run], Evaluator]
"""Starts the judge that explains kernels for a run."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Answers only GET and HEAD of those who have the token, and sets the headers of every answer.

    The token is read from the first address, which is left at once for one without it, then from a cookie; programs
    send it as ``Authorization: Bearer TOKEN``. A profile costs a judge, so that it is for those whom no other site led
    to it: they have a second cookie, which browsers keep to themselves then.
    """

    app: ASGIApp
    token: str
    policy: str
    """The content security policy of the pages."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update({
                    "content-security-policy": self.policy, "cache-control": "no-store",
                    "referrer-policy": "no-referrer", "x-content-type-options": "nosniff",
                    "cross-origin-resource-policy": "same-origin",
                })  # fmt: skip
            await send(message)

        await self._answer(Request(scope))(scope, receive, with_headers)

    def _answer(self, request: Request) -> ASGIApp:
        name = f"avo-{request.url.port or 80}"  # a browser sends the cookies of a host to each of its ports
        # The strict one alone would keep out those who follow a link in a mail to the first address.
        cookies: dict[str, Literal["lax", "strict"]] = {name: "lax", f"{name}-own": "strict"}
        given = request.query_params.get("token")
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("This page is only read.\n", 405, {"allow": "GET, HEAD"})
        if given is not None and self._fits(given):
            query = request.url.remove_query_params("token").query
            # One slash: two would begin the name of another host.
            answer = RedirectResponse(f"/{request.url.path.lstrip('/')}{query and f'?{query}'}", 303)
            for name, site in cookies.items():
                answer.set_cookie(name, given, httponly=True, samesite=site, max_age=30 * 86400)
            return answer
        if self._fits(bearer):
            return self.app
        lax, strict = (self._fits(request.cookies.get(name, "")) for name in cookies)
        if lax and "profile" in request.query_params:
            # Sites that differ in nothing but the port get both cookies; browsers tell them apart by this header.
            if strict and request.headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
                return self.app
            return PlainTextResponse("A profile is made for the link on the attempt's page alone.\n", 403)
        if lax:
            return self.app
        return PlainTextResponse("Open the address that avo serve printed: it has the token.\n", 401)

    def _fits(self, given: str) -> bool:
        return compare_digest(given.encode(errors="replace"), self.token.encode())


def make_app(reader: Reader, token: str, clock: Callable[[], datetime], profiler: MakeProfiler) -> Guard:
    """Return the application. ``profiler`` starts a judge when somebody asks for the profile of an attempt."""
    pages = _Pages(reader, clock, profiler)
    routes = [
        Route("/", pages.runs),
        Route("/compare", pages.compare),
        Route("/runs/{run}", pages.run),
        Route("/runs/{run}/attempts", pages.attempts),
        Route("/runs/{run}/attempts/{attempt:int}", pages.attempt),
    ]
    handlers = dict.fromkeys((StoreError, AvoError), pages.failed)
    app = Starlette(routes=routes, exception_handlers=handlers)
    return Guard(app, token, pages.policy)


class _Pages:
    """Renders each page. Its methods run in threads."""

    def __init__(self, reader: Reader, clock: Callable[[], datetime], profiler: MakeProfiler) -> None:
        self._reader = reader
        self._clock = clock
        self._profiler = profiler
        self._environment = html_environment()
        self._environment.globals["release"] = installed("avo-kernels")
        self._environment.globals |= {each.__name__: each for each in (how_far, spent, standing, under_way, unit_for)}
        self._environment.filters |= {each.__name__: each for each in (spread, valued)}
        self._style, self._script = (inlined(self._environment, name) for name in ("style.css", "served.js"))
        self.policy = policy_of(self._style, self._script).replace("form-action 'none'", "form-action 'self'")
        self.policy += "; connect-src 'self'; frame-ancestors 'none'"
        self._drawn = lru_cache(_MOST_PROFILES)(lambda figure, width: Markup(draw_trajectory(figure, width)))
        self._profiles: dict[tuple[str, str, str], tuple[Profile, ...]] = {}
        self._judging = Lock()

    def runs(self, request: Request) -> Response:
        found = self._reader.runs()
        working = self._reader.running(found)
        tag = _tag([(each.summary.run.name, each.summary.run.updated, each.state) for each in found], working)
        words, order, page = _asked(request, listing.ORDERS)
        shown = listing.arranged(found, words.lower().split(), order)
        return self._page(
            request,
            "runs",
            "Runs",
            tag,
            lambda: _paged(shown[page.start : page.stop], len(shown), page, words, order) | {"working": working},
        )

    def run(self, request: Request) -> Response:
        picture, charts = self._reader.picture(request.path_params["run"])
        view = picture.view

        def names() -> dict[str, Any]:
            since = picture.tried.last - view.recent[-1].attempt_id if view.recent else None
            made = {"report": charts, "served": True, "since": since, "accepted": picture.versions[-PAGE:][::-1]}
            drawn = {"trajectory": self._drawn}
            return names_of(charts, self._clock()) | figures(charts.unit, view.run.name, view.run) | made | drawn

        return self._page(request, "run", view.run.name, _tag(view.run.created, view.revision, view.state), names)

    def attempts(self, request: Request) -> Response:
        picture, _ = self._reader.picture(request.path_params["run"])
        run = picture.view.run
        words, order, page = _asked(request, ORDERS)

        def names() -> dict[str, Any]:
            count, rows = self._reader.attempts(picture, tuple(words.lower().split()), order, page)
            return _paged(rows, count, page, words, order) | {"run": run, "of": picture.view.unit}

        return self._page(
            request, "attempts", f"Attempts of {run.name}", _tag(run.created, picture.view.revision), names
        )

    def attempt(self, request: Request) -> Response:
        picture, _ = self._reader.picture(request.path_params["run"])
        run, against = picture.view.run, request.query_params.get("against", "")
        details = self._reader.attempt(run, request.path_params["attempt"])
        attempt = details.attempt
        names: dict[str, Any] = {"run": run, "attempt": attempt, "summary": details.summary, "step": details.step}
        names |= {"measured_here": picture.view.measured.get(attempt.id), "against": against, "diff": None}
        if found := self._reader.against(run, details, against):
            names |= {"old": found[0], "diff": diff_of(found[1].id, found[1].source, attempt.source)}
        score = attempt.evaluation.score
        of = unit_for(run, score)
        cases = units_of(run.problem, run.suite, run.target, score.card) if score and of.nbytes else {}
        names |= {"of": of, "of_case": lambda case: cases.get(case, TFLOPS)}
        case = request.query_params.get("profile", "")
        known = request.method == "GET" and score is not None and case in [each.case for each in score.cases]
        names["profiles"] = self._profile(run, attempt, case) if known else None
        names |= {"profiled": f"attempt {attempt.id}", "score": score, "limits": {"source": 60_000}}
        names |= figures(unit(score, of) if score else "", f"{run.name}#{attempt.id}", run)
        return self._page(request, "attempt", f"{run.name}, attempt {attempt.id}", "", lambda: names)

    def compare(self, request: Request) -> Response:
        asked = list(dict.fromkeys(request.query_params.getlist("run")))[:_MOST_COMPARED]
        if len(asked) < 2:
            raise Incomparable("tick two runs or more of one problem, suite and target")
        courses, of = self._reader.compare(asked)
        tables = [
            (cost, [(amount, [each.best_at(cost, amount) for each in courses]) for amount in marks(courses, cost)])
            for cost in COSTS
        ]
        names: dict[str, Any] = {"courses": courses, "of": of, "tables": tables, "wide": WIDE, "narrow": NARROW}
        names["drawn"] = lambda cost, width: Markup(draw_courses(courses, cost, of, width))
        return self._page(request, "compare", "Comparison", "", lambda: names)

    def failed(self, request: Request, error: Exception) -> Response:
        if isinstance(error, StoreError):
            self._reader.forget(error)
        wrong = isinstance(error, AvoError) and not isinstance(error, Busy)
        status = 404 if isinstance(error, _UNKNOWN) else 400 if wrong else 503
        answer = self._page(request, "failed", "Not shown", "", lambda: {"words": str(error)}, status)
        if isinstance(error, Busy):
            answer.headers["retry-after"] = "5"
        return answer

    def _profile(self, run: Run, attempt: Attempt, case: str) -> tuple[Profile, ...] | Fault | str:
        """Ask a judge, for one visitor at a time: it compiles and plays the kernel, some seconds of a core."""
        key = run.name, attempt.digest, case
        if key in self._profiles:
            return self._profiles[key]
        if not self._judging.acquire(blocking=False):
            return "the judge explains another kernel: try again in a minute"
        try:
            with self._profiler(run) as judge:
                found = judge.profile(Candidate(run.problem, attempt.source), case)
        except (EvaluatorError, AvoError, OSError) as error:
            return f"the judge is not available: {error}"
        finally:
            self._judging.release()
        if isinstance(found, Fault):  # it may be of the moment: too little time, or memory
            return found
        while len(self._profiles) >= _MOST_PROFILES:
            self._profiles.pop(next(iter(self._profiles)))
        self._profiles[key] = found
        return found

    def _page(
        self, request: Request, name: str, title: str, tag: str, names: Callable[[], dict[str, Any]], status: int = 200
    ) -> Response:
        """Return a page, or 304 to a poll that knows it under this tag; a page without a tag is not polled."""
        if tag and request.headers.get("if-none-match") == tag:
            return Response(status_code=304)
        own = {"title": f"{title}: AVO", "heading": title, "tag": tag, "now": self._clock()}
        own |= {"style": self._style, "script": self._script, "policy": ""}
        text = self._environment.get_template(f"served_{name}.html.j2").render(names() | own)
        return HTMLResponse(text, status)


def _tag(*parts: object) -> str:
    return f'"{hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}"'


def _asked(request: Request, orders: tuple[str, ...]) -> tuple[str, str, range]:
    """Return the words, the order and the places of the rows that a list is asked for."""
    query = request.query_params
    order, first = query.get("order", ""), 0
    with suppress(ValueError):
        first = min(max(0, int(query.get("from", "0")[:9])), 10**9)
    return query.get("words", "")[:200], order if order in orders else orders[0], range(first, first + PAGE)


def _paged(rows: object, count: int, page: range, words: str, order: str) -> dict[str, Any]:
    return {"rows": rows, "count": count, "page": page, "words": words, "order": order}
