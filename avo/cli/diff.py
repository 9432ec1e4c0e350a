"""``avo diff``: what changed between two versions or attempts."""

from difflib import unified_diff
from typing import Annotated

import typer

from avo.cli import completion
from avo.cli.common import DbOption, JsonOption, console, load, print_json, read_store
from avo.cli.show import print_source
from avo.evaluator.resolution import between
from avo.watch.scores import unit_for
from avo.watch.tables import gain, one_line
from avo.watch.wording import percent, valued


def diff(
    old: Annotated[
        str,
        typer.Argument(
            metavar="RUN@A",
            help="The older version, or an attempt, RUN#A; RUN alone: its best version.",
            autocompletion=completion.references,
        ),
    ],
    new: Annotated[
        str,
        typer.Argument(metavar="RUN@B", help="The newer one, likewise.", autocompletion=completion.references),
    ],
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the scores and sources of two versions or attempts.

    Example: avo diff mha-h100@3 mha-h100#38
    """
    with read_store(db) as store:
        pair = [load(store, text) for text in (old, new)]
    names = [each.label for each in pair]
    evaluations = [each.attempt.evaluation for each in pair]
    scores = [evaluation.score for evaluation in evaluations]
    judged = [score and (score.kind, score.target, [case.case for case in score.cases]) for score in scores]
    comparable = judged[0] is not None and judged[0] == judged[1]
    ratio = gain(evaluations[1].geomean_tflops, evaluations[0].geomean_tflops) if comparable else None
    lines = [each.attempt.source.splitlines() for each in pair]
    text = "".join(
        f"{line}\n" for line in unified_diff(lines[0], lines[1], fromfile=names[0], tofile=names[1], lineterm="")
    )
    if as_json:
        versions = [
            {
                "version": name,
                "score": score and score.geomean_tflops,
                "score_kind": score and score.kind,
                "target": each.target,
            }
            for name, each, score in zip(names, evaluations, scores, strict=True)
        ]
        print_json({"old": versions[0], "new": versions[1], "gain": ratio, "diff": text})
        return
    for name, each, score, run in zip(names, evaluations, scores, (each.run for each in pair), strict=True):
        said = valued(score, unit_for(run, score)) if score else f"{each.status.words}: {one_line(each.message)}"
        console.print(f"{name}: {said}")
    if all(judged):
        other = "not comparable: judged on other targets or cases"
        console.print(percent(ratio, between(scores[1], scores[0])) if comparable else other)
    print_source(text, "diff")
