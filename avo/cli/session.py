"""The session of ``avo run`` or ``avo resume``: work on a run under a live display until it ends, then sum up."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from avo.cli.common import console, err, fail, print_json, telling
from avo.watch.wording import counted, first_line, looked, percent, printable, spent

if TYPE_CHECKING:
    from avo.config import RunConfig
    from avo.lineage_db.records import Run
    from avo.lineage_db.store import Store

FAILED = 1
INTERRUPTED = 130
"""Exit code that a shell reports for a command ended by Ctrl-C."""


def ready(config: "RunConfig") -> "RunConfig":
    """Return ``config`` fitted to this machine; raise errors of evaluator or agents where it cannot work here."""
    from avo.search.judging import check_machine, on_gpus, try_command

    config.check_models(os.environ)
    check_machine(config, cluster=True)
    fitting = on_gpus(config, _gpus)
    wanted, fits = (each.evaluators or each.workers for each in (config, fitting))
    if fits != wanted and config.evaluator_command is None:
        shared = round(1 / fitting.evaluator_resources.get("GPU", 1))
        err.print(f"avo: --evaluators {fits} instead of {wanted}: {shared} for each GPU of this machine")
    elif fits != wanted:
        more = "give --workers or --evaluators if it is more than one"
        err.print(f"avo: --workers {fits} instead of {wanted}: one for each GPU reached; {more}")
    if config.evaluator_command is not None:
        with telling("starting a judge by --evaluator-command"):
            try_command(fitting)
    return fitting


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a run begins with."""

    config: "RunConfig"
    """Fitted to this machine."""
    warnings: Sequence[str] = ()
    """What may slow the run down, a line each."""
    calls: Sequence[Mapping[str, Any]] = ()
    """Requests that models were sent to find out whether they answer, as ``Charge`` takes them."""


def begin(config: "RunConfig", database: str) -> Beginning:
    """Examine what a run needs, in seconds: this machine, the database at this URL, judges and models.

    Leaves with exit code 2, or raises errors of evaluator or agents, where the run cannot work.
    """
    from avo.agents.agentic import Agentic
    from avo.agents.probe import probe
    from avo.agents.registry import asks_models
    from avo.config import LOCAL
    from avo.doctor import Health, before_run

    found = [check for check in before_run(database) if check.health is not Health.OK]
    lines = [f"{check.name}: {check.found}: {check.advice}" for check in found]
    if broken := [line for check, line in zip(found, lines, strict=True) if check.health is Health.BROKEN]:
        fail(broken[0])
    config, calls = ready(config), list[Mapping[str, Any]]()
    if asks_models(config.operator) and config.ray_address == LOCAL:  # elsewhere other machines ask
        for model in config.models:
            with telling(f"asking model {printable(model.name)} whether it answers"):
                made, trouble = probe(model, os.environ, tools=config.operator == Agentic.name)
            calls += made
            lines += [f"{trouble}; steps will ask again"] if trouble else []
    return Beginning(config, lines, calls)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _isolation(command: str | None) -> str:
    """Return in words what keeps candidates apart."""
    from avo.evaluator.sandbox.isolation import isolation

    return isolation() if command is None else f"that of the machine behind: {command}"


@contextmanager
def metrics_served(store: "Store", run_name: str, where: str | None, otlp: str | None) -> Iterator[None]:
    """Serve the run's metrics at ``where`` and send them to ``otlp``, if these are given, as long as the context lasts;
    raises ``AvoError``.
    """
    from avo.search.run import utc_now
    from avo.watch.metrics import Collector, Figures, address, served
    from avo.watch.otlp import sent

    with ExitStack() as stack:
        if where is not None:
            stack.enter_context(served(Collector(Figures(store, run_name, utc_now)), *address(where)))
        if otlp is not None:
            say = partial(err.print, "avo:")
            stack.enter_context(sent(Figures(store, run_name, utc_now), otlp, say))
        yield


@contextmanager
def cluster_joined(store: "Store", config: "RunConfig") -> Iterator[None]:
    """Be in the Ray cluster of ``config``, if it names one, as long as the context lasts; raises ``ConfigError``."""
    from avo.config import LOCAL
    from avo.search.cluster import joined

    if config.ray_address == LOCAL:
        yield
        return
    with ExitStack() as stack:
        with err.status(f"joining Ray at {config.ray_address} ..."):
            stack.enter_context(joined(config.ray_address, store.url))
        yield


def work_on(store: "Store", run: "Run", beginning: Beginning, *, as_json: bool, log: Path | None = None) -> None:
    """Work on ``run`` until it ends, print a summary and leave with the command's exit code.

    Events are appended to the file ``log`` and passed to the command of ``config.notify``.
    """
    from dataclasses import replace
    from datetime import timedelta

    from rich.console import Console

    from avo.config import ISOLATION, TOOLS
    from avo.errors import RunFailed, SeedFault
    from avo.evaluator.catalogue import get_problem
    from avo.evaluator.sandbox.isolation import missing_namespaces
    from avo.lineage_db.errors import StoreError
    from avo.search.budget import record_call
    from avo.search.judging import releases
    from avo.search.leases import exclusive
    from avo.search.run import RunSession, Stop, stop_on_signals, utc_now
    from avo.search.workers import hire
    from avo.watch.feed import Feed, LogFile, Receiver
    from avo.watch.notify import Notifier
    from avo.watch.progress import RunProgress

    config = beginning.config
    words = Console(stderr=True, markup=False, highlight=False, emoji=False)

    def say(line: str) -> None:
        words.print(f"avo: {printable(line)}", soft_wrap=True)

    for line in beginning.warnings:
        say(line)
    for call in beginning.calls:
        record_call(store, run.id, None, utc_now, **call)
    if config.evaluator_command is None and (lacking := missing_namespaces()):
        say(f"candidates run without namespaces: {lacking}; avo doctor says what to do")
    kept_apart = {*run.config.get(ISOLATION, ()), _isolation(config.evaluator_command)}
    made_with = {*run.config.get(TOOLS, ()), releases()}
    run = replace(run, config={**run.config, ISOLATION: sorted(kept_apart), TOOLS: sorted(made_with)})
    stop, trouble = Stop(), ""
    deadline = None if config.max_hours is None else utc_now() + timedelta(hours=config.max_hours)
    progress = RunProgress(
        store_url=store.url,
        run_name=run.name,
        console=words,
        deadline=deadline,
        baselines=get_problem(run.problem).baselines,
    )

    def lost() -> None:
        say("another process has taken the run over because this one was not heard from: stopping")
        stop.dispossess()

    with ExitStack() as stack:
        # Ray prints paragraphs about processes that end, also without log_to_driver; the run says a line of each.
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        stack.enter_context(redirect_stdout(nowhere))
        stack.enter_context(exclusive(store, run, clock=utc_now, lost=lost, say=say))
        stack.enter_context(stop_on_signals(stop))
        receivers: list[Receiver] = [LogFile(log, say)] if log else []
        if config.notify:
            receivers.append(stack.enter_context(Notifier(config.notify, say)))
        feed = stack.enter_context(Feed(store, run.name, receivers, utc_now))
        stack.enter_context(progress)
        try:
            RunSession(
                store,
                run,
                config,
                deadline=deadline,
                hire=partial(hire, store.url, run.name, config, deadline=deadline),
                stop=stop,
                say=say,
            ).drive()
        except (SeedFault, RunFailed) as error:
            trouble = str(error)
            feed.fail(trouble)
        except StoreError as error:  # there is nothing to sum up then
            feed.fail(str(error))
            raise
    summary = summarise(store, run.name)
    if as_json:
        print_json(summary)
    else:
        console.print(in_words(summary), soft_wrap=True)
    if trouble:
        if as_json:
            say(trouble)
        raise typer.Exit(FAILED)
    if stop.requested:
        raise typer.Exit(INTERRUPTED)


def summarise(store: "Store", name: str) -> dict[str, Any]:
    """Return the result of a run as data for JSON. ``seed`` and ``best`` are None without versions."""
    from avo.search.run import utc_now
    from avo.search.transfer import progress
    from avo.watch.scores import score_to_json
    from avo.watch.view import read_view
    from avo.watch.wording import goes_on

    view = read_view(store, name, utc_now())
    taken = progress(store, view.run)
    reached = view.best.attempt.evaluation.geomean_tflops if view.best else 0.0
    waiting = [store.attempt(view.run.id, each) for each in store.pages.acceptable(view.run.id)]
    faster = [attempt for attempt in waiting if attempt.evaluation.geomean_tflops > reached]
    fastest = max(faster, key=lambda attempt: attempt.evaluation.geomean_tflops, default=None)
    return {
        "run": name,
        "state": view.run.state,
        "ended_by": view.run.ended_by.to_json() if view.run.ended_by else None,
        "goes_on": goes_on(view.run, view.run.state) or None,
        "attempts": view.attempts,
        "looks": view.run.looks,
        "versions": view.versions,
        "unresolved": view.unresolved,
        "unexamined": fastest
        and {
            "attempt": fastest.id,
            "tflops": fastest.evaluation.geomean_tflops,
            "speed": view.unit.said(fastest.evaluation.geomean_tflops, view.kind or ""),
        },
        "seed": score_to_json(view.seed) if view.seed else None,
        "best": score_to_json(view.best) if view.best else None,
        "gain": view.gain,
        "resolution": view.width,
        "headline": view.headline or None,
        "for_owner": view.for_owner or None,
        "transferred": taken.to_json() if taken else None,
        "spend": {**asdict(view.spend), "tokens": view.spend.tokens} if view.spend.calls else None,
    }


def _spent(data: dict[str, Any]) -> str:
    from avo.lineage_db.entries import Spend

    return spent(Spend(**{key: value for key, value in data.items() if key != "tokens"}))


def in_words(summary: dict[str, Any]) -> str:
    """Return the summary as text, with the commands to look further."""
    from avo.evaluator.target import unchecked
    from avo.lineage_db.decision import unresolved
    from avo.search import transfer

    name, best = summary["run"], summary["best"]
    made = f"{counted(summary['attempts'], 'attempt')}{looked(summary['looks'])}"
    lines = [f"Run {name} {summary['state']}: {made}, {counted(summary['versions'], 'version')}."]
    if ended_by := summary["ended_by"]:
        how = f"; continue with: {summary['goes_on']}" if summary["goes_on"] else "."
        lines.append(f"It {first_line(ended_by['why'])}{how}")
    if best:
        lines.append(
            f"Best: version {best['version']}"
            f"{', ' + percent(summary['gain'], summary['resolution']) + ' over the seed' if summary['gain'] else ''}. "
            f"{summary['headline']}"
        )
        lines += filter(None, [summary["for_owner"], unchecked(best["target"])])
    if summary["unresolved"]:
        lines.append(f"{unresolved(summary['unresolved'])} (avo attempts {name} --ruling unresolved --sort score).")
    if waiting := summary["unexamined"]:
        label = f"{name}#{waiting['attempt']}"
        on = f"{summary['goes_on']} goes on, " if summary["goes_on"] else ""
        lines.append(
            f"Attempt {waiting['attempt']} would be accepted with {waiting['speed']}; the run ended before "
            f"it was examined: {on}avo run --from {label} starts from it."
        )
    if summary["spend"]:
        lines.append(f"Models: {_spent(summary['spend'])}.")
    if summary["transferred"]:
        lines.append(transfer.in_words(summary["transferred"]))
    if best:
        lines += [
            "Look further:",
            f"  avo lineage {name}",
            f"  avo ui {name}",
            f"  avo export {name} --out DIR",
        ]
    return "\n".join(lines)
