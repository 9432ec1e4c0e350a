"""``avo moves``: what the operator ``mutate`` can do to a problem's seed."""

from typing import Annotated, Any

import typer

from avo.cli.common import JsonOption, console, err, fail, print_json
from avo.cli.options import takes_settings
from avo.watch.tables import row, table


@takes_settings
def moves(
    seed_name: Annotated[
        str | None,
        typer.Option("--seed-kernel", metavar="NAME", help="One of the problem's seeds. Default: its first."),
    ] = None,
    as_json: JsonOption = False,
    **settings: Any,
) -> None:
    """List the moves of the operator mutate: what each does, what it needs, and which variants of a seed it makes.

    A move without variants here may have some after another move. Splitting a loop at the diagonal, for example, needs
    a loop that is whole.

    Example: avo moves --problem fsa --target b200
    """
    from avo.agents.moves import MOVES
    from avo.config import RunConfig
    from avo.evaluator.catalogue import get_problem
    from avo.evaluator.targets import get_target
    from avo.seeds import KINDS, seed_source, seeds_of

    config = RunConfig.resolve(None, settings, search=False)
    problem, target = config.problem, config.target
    named = get_problem(problem).name
    names = seeds_of(named)
    if not names:
        fail(f"there is no seed for problem {problem!r}: choose one of {', '.join(KINDS)}")
    seed = seed_name or next(iter(names))
    if seed not in names:
        fail(f"--seed-kernel: {seed!r} should be one of {', '.join(names)}")
    source, card = seed_source(problem, seed), get_target(target)
    found = [
        {
            "move": move.name,
            "hypothesis": move.hypothesis,
            "needs": move.needs,
            "first": [other.name for other in move.first],
            "relieves": sorted(move.relieves),
            "variants": [variant.label for variant in move.variants(source, card, named)],
        }
        for move in MOVES
    ]
    if as_json:
        print_json({"problem": problem, "target": target, "seed": seed, "moves": found})
        return
    title = f"Moves of mutate on the seed {seed!r} of {problem}, for {target}"
    made = table("MOVE", "WHY IT SHOULD PAY OFF", "NEEDS", f"VARIANTS OF {seed}", title=title)
    for each in found:
        needs = f"{each['needs']}; else first {', '.join(each['first'])}" if each["first"] else str(each["needs"])
        row(made, each["move"], each["hypothesis"], needs, "; ".join(each["variants"]) or "-")
    console.print(made)
    err.print("Why a move should pay off is a hypothesis: none of it was measured here.")
