"""``avo lineage``: the accepted versions of a run as a tree."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from avo.cli.common import DbOption, JsonOption, RunArgument, console, print_json, read_store
from avo.watch.tables import gain, row, table
from avo.watch.wording import briefly_measured, cut, first_line, in_a_list, unit

if TYPE_CHECKING:
    from avo.lineage_db.entries import Intervention
    from avo.lineage_db.measurements import Measured
    from avo.lineage_db.records import Run, Version

_SEEN_CHARS = 200
"""Characters of what was seen of a version; ``avo show`` has all."""


def lineage(run: RunArgument, db: DbOption = None, as_json: JsonOption = False) -> None:
    """Show the accepted versions of a run as a tree.

    Each line has a version's score, its gain over its best parent and what changed; the best version stands out. Where
    versions live on islands or are kept by kind, their niche is shown. What a model saw of a version, against what it
    expected, is a line below.

    A figure published for all of the run's cases is a line before the version that reaches it. What the supervisor said
    is a line where the lineage stood at the time.

    Example: avo lineage mha-h100
    """
    from avo.search import transfer

    with read_store(db) as store:
        record = store.run(run)
        taken = transfer.progress(store, record)
        versions = store.versions(record.id)
        steps = {step.number: step for step in store.steps(record.id)}
        interventions = store.journal.interventions(record.id)
        measured = store.measurements.told(record.id)
    records = [_record(each, versions, steps[each.step_number].operator, measured) for each in versions]
    if as_json:
        print_json(records)
        return
    said = [
        (sum(version.step_number <= made.after_step for version in versions), in_words(made)) for made in interventions
    ]
    console.print(
        _tree(record, versions, records, said, measured) if versions else f"{run} has no accepted version yet"
    )
    if taken:
        console.print(transfer.in_words(taken.to_json()), soft_wrap=True)


def in_words(made: "Intervention") -> str:
    """Return what the supervisor said as one line."""
    back = "" if made.restart_from is None else f" from v{made.restart_from}"
    directions = f"; try {', or '.join(made.directions)}" if made.directions else ""
    return f"{made.level}{back}: {made.reason}{directions}"


def _tree(
    run: "Run",
    versions: "Sequence[Version]",
    records: Sequence[dict[str, Any]],
    said: Sequence[tuple[int, str]],
    measured: "Mapping[int, Measured]",
) -> Table:
    """``said``: what the supervisor said, with the number of versions that there were."""
    from avo.watch.scores import lines, over_parent, published, unit_for

    score = versions[0].attempt.evaluation.score
    assert score is not None  # only correct attempts are accepted
    of = unit_for(run, score)
    title = f"{run.name}: versions by {run.operator}, {unit(score, of)}"
    niches = ["NICHE"] if any(version.niche for version in versions) else []
    on_cards = ["ON A CARD"] if measured else []
    blank = [""] * len(niches + on_cards)
    speed = f">{score.kind.upper()}" if measured else f">{of.head.upper()}"
    made = table("", "VERSION", "PARENTS", *niches, *on_cards, speed, ">GAIN", "CHANGE", title=title)
    passed = lines(score, published(run.problem), versions)
    best, by_number = max(each.number for each in versions if each.champion), {each.number: each for each in versions}

    def draw(place: int) -> None:
        for _, found in (line for line in passed if line[0] == place):
            cells = ("┄", "", "", *blank, of.cell(found.published), "", f"published: {found.name}")
            row(made, *cells, style="dim")
        for _, words in (remark for remark in said if remark[0] == place):
            row(made, "▲", "", "", *blank, "", "", f"supervisor: {words}", style="yellow")

    for place, (line, rails) in enumerate(zip(records, branches([v.parents for v in versions]), strict=True)):
        draw(place)
        parents = " ".join(f"v{parent}" for parent in line["parents"])
        cells = [line["niche"]] * len(niches)
        cells += [briefly_measured(measured.get(line["attempt"]), of)] * len(on_cards)
        grown = over_parent(versions[place], by_number)
        row(
            made, rails, f"v{line['version']}", parents, *cells, of.cell(line["score"]),
            grown, in_a_list(line["change"]), style="bold green" if line["version"] == best else "",
        )  # fmt: skip
        if seen := first_line(line["seen"]):
            row(made, "", "", "", *blank, "", "", f"seen: {cut(seen, _SEEN_CHARS)}", style="dim")
    draw(len(versions))
    return made


def _record(
    version: "Version", versions: "Sequence[Version]", operator: str, measured: "Mapping[int, Measured]"
) -> dict[str, Any]:
    evaluation = version.attempt.evaluation
    scores = {other.number: other.attempt.evaluation.geomean_tflops for other in versions}
    assert evaluation.score is not None
    return {
        "version": version.number,
        "attempt": version.attempt.id,
        "parents": list(version.parents),
        "score": evaluation.geomean_tflops,
        "score_kind": evaluation.score.kind,
        "target": evaluation.target,
        "measured": (told := measured.get(version.attempt.id)) and told.to_json(),
        "gain": gain(evaluation.geomean_tflops, max((scores[number] for number in version.parents), default=None)),
        "operator": operator,
        "niche": version.niche,
        "champion": version.champion,
        "change": version.change,
        "seen": version.seen,
        "digest": version.attempt.digest,
        "accepted": version.accepted.isoformat(),
    }


def branches(parents: Sequence[Sequence[int]]) -> list[str]:
    """Return the rails to draw next to versions 0, 1, ..., one line each, given the parents of each.

    A version stands in the column of its first parent if it is the last child of that parent, else it opens a new
    column. A run without branches is one straight line.
    """
    last_child = {group[0]: number for number, group in enumerate(parents) if group}
    columns: list[int | None] = []
    """For each column, the version whose last child is still to come."""
    lines = []
    for number, group in enumerate(parents):
        if group and last_child[group[0]] == number:
            column = columns.index(group[0])
        else:
            column = columns.index(None) if None in columns else len(columns)
            columns[column : column + 1] = [number]
        rails = ["│" if tip is not None else " " for tip in columns]
        rails[column] = "●"
        columns[column] = number if number in last_child else None
        lines.append(" ".join(rails).rstrip())
    return lines
