"""The hot loop of a version: its machine code and PTX, made by the judge on request."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Static

from avo.evaluator.candidate import Candidate
from avo.evaluator.errors import EvaluatorError
from avo.evaluator.evaluation import Fault
from avo.evaluator.evaluators import Evaluator
from avo.evaluator.lanes import lanes
from avo.evaluator.units import TFLOPS, Unit, units_of
from avo.lineage_db.records import Run, Version
from avo.tui.diff import code
from avo.tui.keys import Scroll
from avo.watch.wording import duration, printable

if TYPE_CHECKING:
    from avo.evaluator.profile import Code, Profile

MakeProfiler = Callable[[Run], Evaluator]
"""Starts the judge that explains kernels for a run."""
SEEN, HOT = 0.0005, 0.05
"""Shares of a warp's time from which an instruction's costs are shown, and from which it is highlighted."""
_TICK_S = 0.25
_SPINNER = "|/-\\"


@dataclass(frozen=True, slots=True)
class _Job:
    """A request to the judge: a version of the run, and one case."""

    version: int
    case: str


class HotLoop(Vertical):
    """A page that says how to ask the judge, then that it is busy, then what it found."""

    class Found(Message):
        """The judge has answered."""

        def __init__(self, job: _Job, answer: "Profile | str") -> None:
            super().__init__()
            self.job = job
            self.answer = answer

    def __init__(self, profiler: MakeProfiler) -> None:
        super().__init__()
        self._profiler = profiler
        self._run: Run | None = None
        self._version: Version | None = None
        self._case = 0
        self._part = 0
        self._answers: dict[_Job, Profile | str] = {}
        self._asked: _Job | None = None
        self._ticks = 0
        self._left = False
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        """Lay out the page."""
        yield Static(id="hot-title", markup=False)
        with Scroll(id="hot-page"):
            yield Static(id="hot-text", markup=False)

    def show(self, run: Run, version: Version) -> None:
        """Show a version."""
        self._run, self._version = run, version
        self._draw()

    def ask(self) -> None:
        """Have the judge profile the version's kernels, one request at a time."""
        job = self._job
        if job is None or self._asked or job in self._answers:
            return
        self._asked, self._ticks = job, 0
        self._timer = self.set_interval(_TICK_S, self._tick)
        assert self._run is not None
        assert self._version is not None
        run, candidate = self._run, Candidate(self._run.problem, self._version.attempt.source)
        # Not a worker of the application, which would wait for the judge when the user quits.
        Thread(target=self._profile, args=(run, candidate, job), name="profile", daemon=True).start()
        self._draw()

    def on_unmount(self) -> None:
        """Ignore what the judge still finds."""
        self._left = True

    def next_part(self) -> None:
        """Show the next part: machine code, PTX, what the time is made of, or the timeline."""
        self._part = (self._part + 1) % len(_PARTS)
        self._draw()

    def next_case(self) -> None:
        """Look at the next benchmark case."""
        self._case += 1
        self._draw()

    def on_hot_loop_found(self, message: Found) -> None:
        """Show what the judge found, if it is still wanted."""
        self._answers[message.job] = message.answer
        self._asked = None
        if self._timer:
            self._timer.stop()
        self._draw()

    @property
    def _job(self) -> _Job | None:
        score = self._version.attempt.evaluation.score if self._version else None
        if self._version is None or score is None:
            return None
        return _Job(self._version.number, score.cases[self._case % len(score.cases)].case)

    def _profile(self, run: Run, candidate: Candidate, job: _Job) -> None:
        """Ask the judge; runs in a thread."""
        try:
            with self._profiler(run) as judge:
                found = judge.profile(candidate, job.case)
        except (EvaluatorError, OSError) as error:
            answer: Profile | str = f"the judge is not available: {error}"
        else:
            answer = f"{found.status.words}: {found.message}" if isinstance(found, Fault) else found[0]
        if not self._left:
            self.post_message(self.Found(job, answer))

    def _tick(self) -> None:
        self._ticks += 1
        self._draw()

    def _draw(self) -> None:
        job = self._job
        if job is None or self._run is None:
            return
        title, page = self.query_one("#hot-title", Static), self.query_one("#hot-text", Static)
        answer = self._answers.get(job)
        page.set_class(isinstance(answer, str | None) or _PARTS[self._part][1] is _why, "words")
        if self._asked:
            spin = _SPINNER[self._ticks % len(_SPINNER)]
            since = duration(self._ticks * _TICK_S)
            title.update(
                f"{spin} the judge compiles and plays v{self._asked.version} on {self._asked.case}, {since} so far"
            )
            page.update("")
        elif answer is None:
            title.update(f"v{job.version}, case {job.case}")
            page.update(
                f"Press p to have the judge compile v{job.version} for {self._run.target} and play its kernels: "
                "its machine code, the PTX that was made from, and what its predicted time is spent on. "
                "It takes some seconds of a core.\n\nn: another case"
            )
        elif isinstance(answer, str):
            title.update(f"v{job.version}, case {job.case}")
            page.update(printable(answer))
        else:
            parts = "  ".join(f"[{name}]" if number == self._part else name for number, (name, _) in enumerate(_PARTS))
            heading = f"\n{_heading(answer, answer.code)}" if answer.code else ""
            title.update(f"v{job.version}, {job.case}   o: {parts}   n: case{heading}")
            units = units_of(self._run.problem, self._run.suite, self._run.target)
            page.update(_PARTS[self._part][1](answer, units.get(job.case, TFLOPS)))


def _sass(profile: "Profile") -> RenderableType:
    hot = profile.code
    if hot is None:
        return Text("The judge says nothing of the machine code.")
    lines = [Text("clocks   share  waits for       line  instruction", "dim")]
    for each in hot.sass:
        costs = f"{each.clocks_per_pass:6.1f}  {each.share:6.1%}  {each.reason:<14.14}" if each.share >= SEEN else ""
        text = f"{costs:<30}  {each.line or '':>4}  {each.address:#06x} {printable(each.instruction)}"
        lines.append(Text(text, "bold" if each.share >= HOT else "" if costs else "dim"))
    return Text("\n").join(lines)


def _ptx(profile: "Profile") -> RenderableType:
    hot = profile.code
    if hot is None or not hot.ptx:
        return Text("The judge does not know which PTX the machine code was made from.")
    return code("\n".join(hot.ptx), "asm", line_numbers=False)


def _heading(profile: "Profile", hot: "Code") -> str:
    count = f"{len(hot.sass)} instructions, {profile.kind} for {profile.target}"
    return f"{printable(hot.kernel)}, {printable(hot.section)}: {count}"


def _why(profile: "Profile", unit: Unit) -> RenderableType:
    from avo.watch.explanation import render

    return render(profile, unit)


def _timeline(profile: "Profile") -> RenderableType:
    """Return two passes of the hot loop: how busy each pipe is, and below what warps run or wait for."""
    drawn = profile.timeline
    if drawn is None:
        return Text("The judge has no play of the hot loop.")
    first, *between, last = lanes(drawn, printable)
    return Text("\n").join([Text(first, "dim"), *map(Text, between), Text(last, "dim")])


_PARTS: tuple[tuple[str, Callable[["Profile", Unit], RenderableType]], ...] = (
    ("SASS", lambda profile, unit: _sass(profile)),
    ("PTX", lambda profile, unit: _ptx(profile)),
    ("why", _why),
    ("timeline", lambda profile, unit: _timeline(profile)),
)
