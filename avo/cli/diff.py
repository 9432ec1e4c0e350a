"""``avo diff``: what changed between two versions."""

from difflib import unified_diff
from typing import Annotated

import typer

from avo.cli.common import DbOption, JsonOption, console, load_version, open_store, print_json
from avo.cli.show import print_source
from avo.watch.tables import gain
from avo.watch.wording import percent, unit


def diff(
    old: Annotated[str, typer.Argument(metavar="RUN@A", help="The older version; RUN alone is its best one.")],
    new: Annotated[str, typer.Argument(metavar="RUN@B", help="The newer version.")],
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the scores and sources of two versions.

    Example: avo diff mha-h100@0 mha-h100@3
    """
    with open_store(db) as store:
        pairs = [load_version(store, text) for text in (old, new)]
    names = [f"{run.name}@{version.number}" for run, version in pairs]
    scores = [version.attempt.evaluation.score for _, version in pairs]
    before, after = scores
    assert before is not None  # only correct attempts are accepted
    assert after is not None
    comparable = (before.kind, before.target, [case.case for case in before.cases]) == (
        after.kind, after.target, [case.case for case in after.cases],
    )  # fmt: skip
    ratio = gain(after.geomean_tflops, before.geomean_tflops) if comparable else None
    lines = [version.attempt.source.splitlines() for _, version in pairs]
    text = "".join(
        f"{line}\n" for line in unified_diff(lines[0], lines[1], fromfile=names[0], tofile=names[1], lineterm="")
    )
    if as_json:
        versions = [
            {"version": name, "score": score.geomean_tflops, "score_kind": score.kind, "target": score.target}
            for name, score in zip(names, (before, after), strict=True)
        ]
        print_json({"old": versions[0], "new": versions[1], "gain": ratio, "diff": text})
        return
    for name, score in zip(names, (before, after), strict=True):
        console.print(f"{name}: {score.geomean_tflops:.1f} {unit(score)}")
    console.print(percent(ratio) if comparable else "not comparable: judged on other targets or cases")
    print_source(text, "diff")
