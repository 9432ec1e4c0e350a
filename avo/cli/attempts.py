"""``avo attempts``: every attempt of a run, and its failures by reason."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avo.cli.common import DbOption, JsonOption, RunArgument, console, print_json, read_store
from avo.evaluator.evaluation import Status
from avo.evaluator.target import score_kind
from avo.lineage_db.decision import Ruling
from avo.watch.scores import unit_for
from avo.watch.tables import row, table
from avo.watch.wording import edited_from, in_a_list

if TYPE_CHECKING:
    from avo.lineage_db.records import AttemptSummary, Run, Step


class Order(StrEnum):
    """What attempts are sorted by."""

    ID = "id"
    """The oldest first."""
    SCORE = "score"
    """The fastest first, then those without a score."""
    TIME = "time"
    """Those whose evaluation took longest first."""


def attempts(
    run: RunArgument,
    status: Annotated[
        list[Status] | None,
        typer.Option(metavar="STATUS", help="Only attempts with this status, e.g. incorrect; may be repeated."),
    ] = None,
    ruling: Annotated[
        list[Ruling] | None,
        typer.Option(
            metavar="RULING", help="Only attempts of which this was decided, e.g. unresolved; may be repeated."
        ),
    ] = None,
    failures: Annotated[bool, typer.Option("--failures", help="Only failed attempts.")] = False,
    sort: Annotated[
        Order, typer.Option(metavar="id|score|time", help="Sort by id, by score or by the time of the evaluation.")
    ] = Order.ID,
    last: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the N newest of those chosen, sorted as --sort says.")
    ] = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """List all attempts of a run, why correct ones are no versions, and its failures by reason.

    RUN#38 names attempt 38 wherever a version can be named.

    Example: avo attempts mha-h100 --ruling unresolved --sort score
    """
    with read_store(db) as store:
        record = store.run(run)
        steps = {step.number: step for step in store.steps(record.id)}
        every = store.attempt_summaries(record.id)
    chosen = [
        attempt
        for attempt in every
        if (not status or attempt.status in status)
        and (not ruling or attempt.ruling in ruling)
        and not (failures and attempt.status is Status.CORRECT)
    ]
    if last is not None:
        chosen = chosen[-last:]
    if sort is not Order.ID:
        chosen.sort(key=lambda attempt: -(attempt.geomean_tflops if sort is Order.SCORE else attempt.seconds))
    lines = [_record(record, attempt, steps[attempt.step_number]) for attempt in chosen]
    if as_json:
        print_json(lines)
        return
    kind = score_kind(record.target)
    unit = unit_for(record)
    title = f"{run}: {len(chosen)} of {len(every)} attempts by {record.operator}, {kind} {unit.name}, {record.target}"
    made = table(">ID", ">STEP", "PARENT", "STATUS", f">{unit.head.upper()}", "VERSION", ">TIME", "CHANGE", title=title)
    for line, attempt in zip(lines, chosen, strict=True):
        score = None if line["score"] is None else unit.cell(line["score"])
        accepted = None if line["version"] is None else f"v{line['version']}"
        parents = " ".join([*(f"v{number}" for number in attempt.parents), *edited_from(attempt.built_on)])
        why = f"; {attempt.decision.told}" if attempt.decision and attempt.decision.refused else ""
        style = "bold green" if accepted else "" if line["score"] else "red"
        row(
            made, line["id"], line["step"], parents, line["status"], score, accepted, f"{line['seconds']:.1f} s",
            f"{in_a_list(attempt.change)}{why}", style=style,
        )  # fmt: skip
    console.print(made)
    _print_reasons(chosen)


def _print_reasons(attempts: "list[AttemptSummary]") -> None:
    """Print the failures. Those whose messages differ in numbers only are one line, with the first message."""
    from avo.watch.failures import by_reason

    reasons = by_reason(attempts)
    if not reasons:
        return
    console.print()
    made = table(">FAILED", "STATUS", "REASON", "IDS")
    for alike in reasons:
        ids = " ".join(map(str, alike.attempts[:8])) + (" ..." if len(alike.attempts) > 8 else "")
        row(made, len(alike.attempts), alike.status, alike.message, ids)
    console.print(made)


def _record(run: "Run", attempt: "AttemptSummary", step: "Step") -> dict[str, Any]:
    return {
        "id": attempt.attempt_id,
        "step": attempt.step_number,
        "digest": attempt.digest,
        "plan_digest": attempt.plan_digest,
        "status": attempt.status,
        "message": attempt.message,
        "score": attempt.geomean_tflops if attempt.status is Status.CORRECT else None,
        "score_kind": score_kind(run.target) if attempt.status is Status.CORRECT else None,
        "version": attempt.version,
        "ruling": attempt.ruling,
        "decision": attempt.decision and attempt.decision.sentence,
        "gain": attempt.decision and attempt.decision.gain,
        "share": attempt.decision and attempt.decision.share,
        "resolution": attempt.decision and attempt.decision.resolution,
        "parents": list(attempt.parents),
        "built_on": attempt.built_on,
        "change": attempt.change,
        "operator": step.operator,
        "worker": step.worker,
        "seconds": attempt.seconds,
    }
