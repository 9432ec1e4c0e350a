"""The toolbox of one step: tools by name, text in, text out. A caller needs neither a loop nor a model."""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from avo.agents.descent import Descent
from avo.agents.errors import BudgetSpent, CandidateTaken, LooksSpent
from avo.agents.memory import recalled
from avo.agents.model import ToolCall, readable
from avo.agents.operator import Brief
from avo.agents.tools import arguments, sources, tables
from avo.agents.tools.arguments import BadCall, parse, tool_specs
from avo.agents.tools.code import main_loop, page
from avo.agents.tools.editing import changed_lines, difference, edited, function_lines, passages
from avo.agents.tools.evaluating import EXPECTED, Evaluations
from avo.agents.tools.resemblance import resembled
from avo.agents.tools.shown import Shown
from avo.agents.tools.tables import cut, fitting
from avo.agents.tools.varying import explored, tried, variant
from avo.agents.tools.workbench import WORKING, Base, StepAttempt, Workbench, numbered
from avo.evaluator.beside import beside
from avo.evaluator.catalogue import get_suite, kind_of, name_of
from avo.evaluator.errors import EvaluatorUnavailable, UnknownProblem
from avo.evaluator.evaluation import Fault
from avo.evaluator.inspection import Findings, Inspection, Look, Show
from avo.evaluator.lanes import drawn
from avo.evaluator.problem import HELD_OUT
from avo.evaluator.units import TFLOPS, units_of
from avo.knowledge_base.library import LibraryError
from avo.lineage_db.records import Attempt, Version

MOST_CHARS = 16_000
"""Largest size of a result, about 4000 tokens. Longer results lose their middle."""
ERROR = "error: "
"""How the result of a call that could not be performed begins."""
NOT_RUN = "not run: the call before failed"
"""The result of a call that was asked for together with one that ``failed``, and after it."""
_LONG = 40
"""Lines of a source from which on few changes to it are better edits."""
_NOTE_CHARS = 200
"""Characters of a result reserved for the note that there is more."""


class Toolbox:
    """The tools of one step and its workbench. The answer to a bad call says what to send instead."""

    def __init__(self, brief: Brief, bench: Workbench | None = None, most_chars: int = MOST_CHARS) -> None:
        """``bench`` is that of the step that is resumed; by default the best version is the working source.

        Results have ``most_chars`` at most.
        """
        self._brief = brief
        self._most_chars = most_chars
        best = brief.parent
        self.bench = bench or Workbench(best.attempt.source, (best.number,))
        self._descent = Descent(brief.versions, brief.attempts)
        self._evaluations = Evaluations(brief, self.bench, self._descent)
        self.shown = Shown()
        """What the caller has read. It is not sent again of late: whoever shows a source, or shortens, says so here."""
        suites = tuple(name for name in brief.problem.suites if name != HELD_OUT)
        cases = tuple(case.name for case in get_suite(brief.problem, brief.suite))
        self.specs: list[dict[str, Any]] = tool_specs(suites, cases)
        """Descriptions of the tools, as chat completions expect them."""
        self._suites = suites
        self._tools: dict[str, Callable[[Any], str]] = {
            "read_lineage": self._read_lineage,
            "read_version": self._read_version,
            "diff_versions": self._diff_versions,
            "search_knowledge": self._search_knowledge,
            "read_note": self._read_note,
            "sources": self._sources,
            "view_source": self._view_source,
            "edit_source": self._edit_source,
            "write_source": self._write_source,
            "try_variants": self._try_variants,
            "explore_directions": self._explore_directions,
            "check": self._check,
            "evaluate": self._evaluate,
            "collect": self._collect,
            "profile": self._profile,
            "run_python": self._run_python,
            "remember": self._remember,
            "recall": self._recall,
            "submit": self._submit,
        }

    def call(self, name: str, arguments_json: str) -> str:
        """Call the tool ``name`` and return its result, cut in the middle if it is too long.

        Raises ``EvaluatorUnavailable`` and the errors of the desk.
        """
        return self._kept(name, arguments_json, self._answer(name, arguments_json))

    def call_together(self, calls: Sequence[ToolCall]) -> list[str]:
        """Perform calls of tools that only read side by side, and return what ``call`` does of each, in order."""
        with ThreadPoolExecutor(len(calls)) as threads:
            said = list(threads.map(lambda call: self._answer(call.name, call.arguments), calls))
        return [self._kept(call.name, call.arguments, each) for call, each in zip(calls, said, strict=True)]

    def finish(self) -> str:
        """Wait for the evaluations under way and return what came of them: their attempts are on the workbench then."""
        return "\n\n".join(self._evaluations.finish())

    def _answer(self, name: str, arguments_json: str) -> str:
        if self.bench.done:
            return f"{ERROR}the step has ended with its submission"
        try:
            asked = parse(name, arguments_json)
            said = self._tools[name](asked)
        except (BadCall, UnknownProblem, LibraryError, BudgetSpent, CandidateTaken, LooksSpent) as error:
            said = f"{ERROR}{error}"
        return cut(readable(said), self._most_chars)

    def _kept(self, name: str, arguments_json: str, result: str) -> str:
        if name in ("check", "evaluate", "profile", "try_variants", "explore_directions"):
            self.bench.results[name] = result
        if ended := self._evaluations.news():
            self.bench.results["evaluate"] = "\n\n".join(ended)
        if not result.startswith(ERROR):
            result = self.shown.answer(name, arguments_json, result)
        news = [*ended, *self._brief.desk.news()]
        return cut("\n\n".join([result, *news]), self._most_chars) if news else result

    # Reading

    def _read_lineage(self, asked: arguments.ReadLineage) -> str:
        attempts = [
            attempt for attempt in self._brief.not_accepted if not (asked.failures_only and attempt.geomean_tflops)
        ]
        latest = attempts[len(attempts) - asked.attempts :] if asked.attempts < len(attempts) else attempts
        said = tables.lineage(self._brief.versions, latest, self._brief.target.kind, self._descent)
        if better := tables.unresolved(self._brief.unresolved):
            said += f"\n\nUnresolved attempts, which may be built on:\n{better}"
        return "\n".join([said, *(["", "This step:", *self.bench.lines] if self.bench.lines else [])])

    def _read_version(self, asked: arguments.ReadVersion) -> str:
        if asked.attempt is not None:
            attempt = self._attempt(asked.attempt)
            return self._whole(tables.attempt(attempt), attempt.source)
        version = self._version(asked.version)
        return self._whole(tables.version(version), version.attempt.source)

    def _whole(self, text: str, source: str) -> str:
        """Return a text that ends with a source, without it where the caller has that."""
        if self.shown.has(source):
            return f"{text.removesuffix(source)}[its source: as you have it above]"
        if len(text) <= self._most_chars:
            self.shown.add(source)
        return text

    def _diff_versions(self, asked: arguments.DiffVersions) -> str:
        old, old_name = self._named(asked.old, asked.old_attempt)
        new, new_name = self._named(asked.new, asked.new_attempt)
        return difference(old, new, old_name, new_name) or "no difference"

    def _search_knowledge(self, asked: arguments.SearchKnowledge) -> str:
        found = self._brief.knowledge.search(
            asked.query,
            architecture=self._brief.target.arch,
            problem=kind_of(self._brief.problem.name),
            limit=asked.limit,
        )
        rows = [(note.id, tables.short(note.title, 80), tables.short(note.body, 100)) for note in found]
        return tables.table(("id", "title", "begins"), rows) if rows else "nothing found: use other words, or fewer"

    def _read_note(self, asked: arguments.ReadNote) -> str:
        return self._brief.knowledge.note(asked.id).whole

    def _sources(self, asked: arguments.Sources) -> str:
        text = sources.listed(self._brief) if asked.name is None else sources.named(self._brief, asked.name)
        return page(text, asked.first, self._most_chars - _NOTE_CHARS)

    # Editing

    def _view_source(self, asked: arguments.ViewSource) -> str:
        source = self.bench.source
        if asked.function is not None:
            return numbered(source, *function_lines(source, asked.function))
        whole = asked.first == 1 and asked.last is None
        if whole and self.shown.has(source):
            count = len(source.splitlines())
            return f"you have it above as it is now, {count} lines: ask for a function, or for lines by first and last"
        text = numbered(source, asked.first, asked.last) or "there are no such lines"
        if whole and len(text) <= self._most_chars:
            self.shown.add(source)
        return text

    def _edit_source(self, asked: arguments.EditSource) -> str:
        source = self.bench.source
        self.bench.source = edited(source, passages(asked))
        *_, where = changed_lines(source, self.bench.source)
        return f"edited: {where}" if where else "no difference"

    def _write_source(self, asked: arguments.WriteSource) -> str:
        if asked.source is not None:
            (lost, gained, _), lines = changed_lines(self.bench.source, asked.source), len(asked.source.splitlines())
            self.bench.source = asked.source
            self.shown.add(asked.source)
            few = lines > _LONG and lost + gained < lines // 4
            advice = f"; only {lost} lines went and {gained} came: edit_source says that in less" if few else ""
            return f"written: {lines} lines; parents stay {list(self.bench.parents)}{advice}"
        if asked.variant is not None:
            self.bench.take(asked.variant, variant(self.bench, asked.variant))
            return f"the working source is variant {asked.variant}; parents are {list(self.bench.parents)}"
        base = self._base(asked.version, asked.attempt)
        self.bench.start_from(base)
        return f"the working source is that of {base.name}"

    def _try_variants(self, asked: arguments.TryVariants) -> str:
        return tried(self._brief, self.bench, asked, self._base(asked.version, asked.attempt))

    def _explore_directions(self, asked: arguments.ExploreDirections) -> str:
        return explored(self._brief, self.bench, asked, self._base(asked.version, asked.attempt))

    # Judging

    def _check(self, asked: arguments.Check) -> str:
        source = asked.source or self.bench.source
        found = tables.check(self._look(Look.CHECK, source))
        return "\n".join(
            filter(None, (found, resembled(self._brief, self.bench, source, self.bench.parents, self.bench.built_on)))
        )

    def _evaluate(self, asked: arguments.Evaluate) -> str:
        if asked.suite not in (None, self._brief.suite):
            return self._preview(str(asked.suite))
        others = (self._version(number).number for number in asked.also_from if number not in self.bench.parents)
        return self._evaluations.evaluate(asked, tuple(others))

    def _collect(self, asked: arguments.Collect) -> str:
        return self._evaluations.collect()

    def _preview(self, suite: str) -> str:
        if suite not in self._suites:
            raise BadCall(f"there is no suite {suite!r}: choose one of {', '.join(self._suites)}")
        found = self._look(Look.SCORE, self.bench.source, suite=suite)
        if found.evaluation is None:
            raise EvaluatorUnavailable("the judge gave no verdict")
        said = tables.verdict(found.evaluation, {})
        return f"on suite {suite}, not recorded: {said}\n{tables.evaluation(found.evaluation)}"

    def _profile(self, asked: arguments.Profile) -> str:
        source, name = asked.source or "", "the given source"
        if asked.variant is not None:
            source, name = variant(self.bench, asked.variant), f"variant {asked.variant}"
        elif not source:
            source, name = self._named(asked.version, asked.attempt)
        case = asked.case or get_suite(self._brief.problem, self._brief.suite)[0].name
        if asked.show in (Show.PIPES, Show.TIMELINE) or asked.against:
            sides = [(source, name), *((self._called(asked.against),) if asked.against else ())]
            found = [self._brief.profile(self._brief.candidate(each), case) for each, _ in sides]
            if fault := next((each for each in found if isinstance(each, Fault)), None):
                return _fault(fault)
            profiles = [each for each in found if not isinstance(each, Fault)]
            if asked.against:
                (mine, *_), (theirs, *_) = profiles
                target, suite = self._brief.target, self._brief.suite
                units = units_of(name_of(self._brief.problem), suite, target.name, target.product)
                text = beside(theirs, mine, units.get(case, TFLOPS), sides[1][1], name)
                return page(text, asked.first, self._most_chars - _NOTE_CHARS)
            return "\n\n".join(map(tables.profile if asked.show is Show.PIPES else drawn, profiles[0]))
        seen = self._look(Look(asked.show.value), source, case=case, before=asked.before)
        if seen.fault:
            return _fault(seen.fault)
        first = (asked.loop and main_loop(seen.text)) or asked.first
        return page(seen.text, first, self._most_chars - _NOTE_CHARS)

    def _called(self, text: str) -> tuple[str, str]:
        """Return the source that a text names, and what to call it: ``v3``, ``#38``, ``base`` or a variant's name."""
        varied = self.bench.varied
        if varied and text in varied.passages:
            return variant(self.bench, text), f"variant {text}"
        if named := re.fullmatch(r"(v|version|#|attempt) ?(\d{1,9})", text.strip().lower()):
            number = int(named[2])
            return self._named(number, None) if named[1][0] == "v" else self._named(None, number)
        if varied and text == arguments.BASE:
            return varied.source, "the base of the variants"
        if text == WORKING:
            return self.bench.source, text
        raise BadCall(f"{text!r:.60} names no source: give v3, #38, base or a variant's name, or working source")

    def _run_python(self, asked: arguments.RunPython) -> str:
        return tables.script(self._look(Look.SCRIPT, asked.code))

    # Ending

    def _remember(self, asked: arguments.Remember) -> str:
        self._brief.desk.remember(asked.note)
        return "kept"

    def _recall(self, asked: arguments.Recall) -> str:
        brief = self._brief
        found = recalled(asked.query, brief.memories, brief.attempts, brief.versions, brief.directions, asked.limit)
        whole = fitting(found, self._most_chars - _NOTE_CHARS, "\n\n")
        left = len(found) - len(whole)
        more = f"\n\n({left} more did not fit: ask with other words, or more)" if left else ""
        return "\n\n".join(whole) + more or "nothing found: use other words, or fewer"

    def _submit(self, asked: arguments.Submit) -> str:
        bench = self.bench
        if ended := self._evaluations.finish():
            raise BadCall("\n\n".join(["not submitted: submit again, now that what was under way has ended", *ended]))
        bench.handover = asked.handover
        if asked.attempt is None:
            bench.done, bench.reason = True, asked.seen
            return "the step ends without a submission"
        attempt = self._submitted(asked.attempt)
        if not attempt.tflops:
            correct = ", ".join(str(each.attempt_id) for each in bench.attempts if each.tflops) or "none"
            raise BadCall(f"attempt {attempt.attempt_id} is not correct: correct ones of this step: {correct}")
        bench.submit(attempt, asked.change, asked.seen)
        return f"attempt {attempt.attempt_id} is submitted; the step ends"

    def _submitted(self, attempt_id: int) -> StepAttempt:
        """Return the attempt to submit: of this step, or of an earlier one as it is on record."""
        for attempt in self.bench.attempts:
            if attempt.attempt_id == attempt_id:
                return attempt
        for version in self._brief.versions:
            if version.attempt.id == attempt_id:
                raise BadCall(f"attempt {attempt_id} is version {version.number} already")
        earlier = self._attempt(attempt_id)
        stated, _, expected = earlier.hypothesis.partition(EXPECTED)
        tflops = earlier.evaluation.geomean_tflops
        return StepAttempt(attempt_id, stated, earlier.change, expected.removesuffix(")"), "", tflops)

    def _version(self, number: int | None) -> Version:
        for version in self._brief.versions:
            if version.number == number:
                return version
        known = ", ".join(str(version.number) for version in self._brief.versions)
        raise BadCall(f"there is no version {number}: choose one of {known}")

    def _attempt(self, attempt_id: int | None) -> Attempt:
        try:
            return self._brief.desk.attempt(attempt_id or 0)
        except LookupError:
            raise BadCall(f"there is no attempt {attempt_id}: read_lineage lists them") from None

    def _named(self, version: int | None, attempt: int | None) -> tuple[str, str]:
        """Return the source of a version or an attempt, or else the working source, and what to call it."""
        base = self._base(version, attempt)
        return base.source, base.name

    def _base(self, version: int | None, attempt: int | None) -> Base:
        """Return a version or an attempt to work from, or else the working source."""
        if version is not None:
            return Base(self._version(version).attempt.source, f"version {version}", (version,))
        if attempt is not None:
            earlier = self._attempt(attempt)
            return Base(earlier.source, f"attempt {attempt}", earlier.parents, attempt)
        bench = self.bench
        return Base(bench.source, WORKING, bench.parents, bench.built_on, bench.follows)

    def _look(
        self,
        look: Look,
        source: str,
        *,
        suite: str | None = None,
        case: str | None = None,
        before: str | None = None,
    ) -> Findings:
        return self._brief.desk.inspect(Inspection(look, name_of(self._brief.problem), source, suite, case, before))


def failed(name: str, result: str) -> bool:
    """Return whether the calls after one of the tool ``name`` would go on from what is not so: from a call that could
    not be performed, or from a kernel whose check found a fault.
    """
    return result.startswith(ERROR) or (name == "check" and not result.startswith(tables.SOUND))


def _fault(fault: Fault) -> str:
    return f"{fault.status.words}: {fault.message}"
