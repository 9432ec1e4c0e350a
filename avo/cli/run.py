"""``avo run``: start a run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from avo.cli import completion
from avo.cli.common import (
    DbOption,
    JsonOption,
    LogOption,
    MetricsOption,
    OtlpOption,
    err,
    fail,
    load,
    open_store,
    read_source,
)
from avo.cli.database import database_url
from avo.cli.options import takes_settings

if TYPE_CHECKING:
    from avo.config import RunConfig
    from avo.lineage_db.directions import Direction
    from avo.lineage_db.store import Store
    from avo.model_config import ModelProblem, Phase


@takes_settings
def run(
    start_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN[@VERSION|#ATTEMPT]",
            help="Start from a version or an attempt of another run, which may be of another problem; from what a card "
            "measured fastest with RUN@measured.",
            autocompletion=completion.references,
            rich_help_panel="Search",
        ),
    ] = None,
    from_memory: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.JSON|RUN",
            help="Take over the directions of another run with their evidence: from a run of the database, or what avo "
            "memory RUN --json printed. All operators but mutate read them.",
            autocompletion=completion.runs,
            rich_help_panel="Search",
        ),
    ] = None,
    seed_kernel: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Start from this one of the problem's seeds, e.g. tuned, or from this kernel. Default: all its seeds.",
            rich_help_panel="Search",
        ),
    ] = None,
    for_model: Annotated[
        Path | None,
        typer.Option(
            "--for",
            metavar="CONFIG.JSON",
            help="A model's Hugging Face configuration, of whose attention the problem is made; in place of --problem.",
            rich_help_panel="Search",
        ),
    ] = None,
    phase: Annotated[
        str | None,
        typer.Option(
            metavar="PHASE", help="With --for: prefill, train or decode. Default: prefill.", rich_help_panel="Search"
        ),
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            metavar="N,N",
            help="With --for: tokens of a sequence, a case each. Default: 8192; 32768 to decode.",
            rich_help_panel="Search",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(metavar="N", help="With --for: sequences of each case. Default: 1.", rich_help_panel="Search"),
    ] = None,
    packed: Annotated[
        bool,
        typer.Option(
            "--packed",
            help="With --for: pack sequences of several lengths, one after another, into as many tokens (cu_seqlens).",
            rich_help_panel="Search",
        ),
    ] = False,
    log: LogOption = None,
    metrics: MetricsOption = None,
    otlp: OtlpOption = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="TOML file with settings; options win over it.")
    ] = None,
    db: DbOption = None,
    as_json: JsonOption = False,
    **settings: Any,
) -> None:
    """Evolve a kernel. Without a limit it runs until Ctrl-C.

    Ctrl-C once: workers have 30 s to finish their steps. Twice: stop at once. Either way, avo resume RUN continues.

    A --config file has lines like: target = "b200", max_attempts = 100, min_gain = 0.01, min_share = 0.9,
    evaluation_wall_s = 300; and where speed is measured: alpha = 0.05, equivalence_margin = 0.005, cascade = 0.25.

    Operators agent and single_turn ask a language model behind an OpenAI-compatible endpoint: set OPENAI_API_KEY,
    OPENAI_BASE_URL and --model. See docs/agent.md for prices and sampling.

    First all seeds of the problem that are for the target are judged. Each is a version without parents, and the
    fastest is the best so far. The judge is tested with a wrong and a slow variant of one of them.

    --from may name a run of another problem. Where kernels for both problems take the same arguments (mha, gqa), the
    version is the seed. Otherwise (mha, fsa) the run starts from the seeds of its own problem, and the operator gets
    the version and its history to adapt.

    --from RUN#38 starts from attempt 38, which need not be a version. A run on a GPU (--target cuda) that starts from a
    predicted run first times that run's fastest unresolved attempts.

    Exit code 0: a limit is reached or nothing is left to try. 1: every seed fails, the judge fails its test, or workers
    keep failing, or a model makes no attempt. 2: the call is wrong. 130: stopped by Ctrl-C, SIGTERM, a closed terminal.

    Example: avo run --target b200 --max-attempts 50

    Example: avo run --problem gqa-d64-fp16

    Example: avo run --for Qwen3-8B/config.json --phase decode --lengths 8192,32768 --batch 4

    Example: avo run --operator agent --model gpt-5 --max-steps 20 --max-tokens 5000000

    Example: avo run --problem gqa --operator agent --model gpt-5 --from-memory mha-h100
    """
    from avo.cli.session import begin, cluster_joined, metrics_served, work_on
    from avo.config import DIRECTIONS, RunConfig
    from avo.evaluator.catalogue import get_problem
    from avo.evaluator.known import CARD, figures
    from avo.model_time import LAYER, sizes_of
    from avo.search.run import utc_now
    from avo.subject import FOR

    model = _model(for_model, phase, lengths, batch, packed, settings)
    if model is not None:
        settings["problem"] = model.problem
    chosen = RunConfig.resolve(config, settings)
    _check_operator({**settings, "from_memory": from_memory}, chosen)
    card = figures(chosen.target)  # before a run of the database brings its own of that name
    of_file = _of_file(from_memory)
    beginning = begin(chosen, database_url(db))
    chosen = beginning.config
    with open_store(db, create=True) as store:
        start = _start(store, chosen, start_from, seed_kernel)
        if from_memory is not None:
            start[DIRECTIONS] = _directions(store, from_memory, of_file)
        if model is not None:
            _say(model)
            start[FOR] = {**model.to_json(), LAYER: sizes_of(model.config)}
        if card is not None:
            _check_card(store, card)
            start[CARD] = card
        name = chosen.name
        if name is None:
            what = get_problem(chosen.problem).name if model is None else model.label
            name = store.free_run_name(f"{what}-{chosen.target}")
        chosen = chosen.model_copy(update={"name": name})
        with metrics_served(store, name, metrics, otlp), cluster_joined(store, chosen):
            created = store.create_run(
                name=name,
                problem=chosen.problem,
                target=chosen.target,
                suite=chosen.suite,
                operator=chosen.operator,
                seed=chosen.seed,
                config={**chosen.model_dump(), **start},
                now=utc_now(),
            )
            work_on(store, created, replace(beginning, config=chosen), as_json=as_json, log=log)


def _model(
    file: Path | None, phase: str | None, lengths: str | None, batch: int | None, packed: bool, settings: dict[str, Any]
) -> "ModelProblem | None":
    """Return the problem of the model that ``--for`` names; None without ``--for``."""
    from avo.model_config import PHASES, read_model

    if file is None:
        for name, value in (("phase", phase), ("lengths", lengths), ("batch", batch), ("packed", packed or None)):
            if value is not None:
                fail(f"--{name} says how a model is used: add --for CONFIG.JSON, or leave it out")
        return None
    if settings.get("problem") is not None:
        fail("--for makes the problem: leave out --problem")
    if phase not in (None, *PHASES):
        fail(f"--phase: {phase!r} should be one of {', '.join(PHASES)}")
    words = [] if lengths is None else lengths.split(",")
    if wrong := [word for word in words if not word.strip().isdecimal() or len(word.strip()) > 9]:
        fail(f"--lengths: {wrong[0]!r} should be a number of tokens, as in 4096,16384")
    of = cast("Phase", phase or "prefill")
    return read_model(file, of, tuple(map(int, words)), 1 if batch is None else batch, packed=packed)


def _say(found: "ModelProblem") -> None:
    """Say what was read of a model, and what of it is not served."""
    err.print(f"avo: {found.model}, {found.phase}: {'; '.join(found.read)}")
    for each in found.not_served:
        err.print(f"avo: not served: {each}")
    if found.phase == "train":
        err.print("avo: this is the backward pass; --phase prefill is the forward pass of the same model")
    err.print(f"avo: the problem is {found.problem}")


def _start(store: "Store", settings: "RunConfig", start_from: str | None, seed: str | None) -> dict[str, Any]:
    """Return what the stored configuration says about where the run starts from."""
    from avo.agents.registry import adapts, get_operator
    from avo.config import START, TIMED_FIRST, TRANSFERRED
    from avo.search.transfer import Use, record, timed_first

    if start_from is None:
        return {START: _seeds(settings, seed)}
    named = load(store, start_from)
    other, attempt = named.run, named.attempt
    if not attempt.evaluation.correct:
        fail(f"--from: attempt {attempt.id} of {other.name} is no start: {attempt.status.words}")
    kept = record(other, attempt, named.version, settings.problem, adapts(get_operator(settings.operator)))
    taken: dict[str, Any] = {} if kept is None else {TRANSFERRED: kept}
    if kept is not None and kept["use"] != Use.SEED:
        own = _seeds(settings, seed)
        if kept["use"] == Use.NOTHING:
            err.print(
                f"avo: operator {settings.operator!r} cannot adapt {named.label}, which takes other arguments: "
                f"it edits {', '.join(each['origin'] for each in own)}"
            )
        return {START: own, **taken}
    if seed is not None:
        fail("--from names the seed already: leave out --seed-kernel")
    if settings.measured and (waiting := timed_first(store, other, attempt)):
        taken[TIMED_FIRST] = waiting
        err.print(f"avo: timed first, unresolved in {other.name}: {', '.join(each['name'] for each in waiting)}")
    return {START: [{"origin": named.label, "source": attempt.source}], **taken}


def _of_file(named: str | None) -> "list[Direction] | None":
    """Return the directions of a file; None where what is ``named`` is a run, or nothing. A bad file is told before any
    model is asked.
    """
    from avo.lineage_db.directions import MOST_BYTES, from_file
    from avo.lineage_db.errors import BadMemory

    if named is None or not (named.endswith(".json") or Path(named).is_file()):
        return None
    try:
        with Path(named).open("rb") as file:
            return from_file(file.read(MOST_BYTES + 1))
    except OSError as error:
        fail(f"--from-memory: cannot read {named}: {error.strerror}")
    except BadMemory as error:
        fail(f"--from-memory: {named}: {error}")


def _directions(store: "Store", named: str, found: "Sequence[Direction] | None") -> list[dict[str, Any]]:
    """Return what the stored configuration says about the directions that the run takes over, and say how many."""
    from avo.agents.directions import strongest
    from avo.search.transfer import known_directions

    if found is None:
        run = store.run(named)
        found = [each.placed(run.name, run.problem, run.target) for each in known_directions(store, run)]
    if not found:
        fail(f"--from-memory: {named} has no directions: its operator stated no hypotheses")
    taken = strongest(found)
    err.print(f"avo: takes over {len(taken)} of {len(found)} directions of {named}")
    return [asdict(each) for each in taken]


def _check_card(store: "Store", card: Mapping[str, Any]) -> None:
    """Fail where another run of the database has another calibrated card of this name."""
    from avo.evaluator.known import CARD

    for other in (each.run for each in store.runs() if each.run.target == card["name"]):
        if other.config.get(CARD) != card:
            fail(f"--target: {other.name} was made for another {card['name']!r}: calibrate under another name")


def _check_operator(given: Mapping[str, Any], chosen: "RunConfig") -> None:
    """Fail for options that the chosen operator does not look at."""
    from avo.agents.operator import COMMAND_OPERATOR
    from avo.agents.registry import asks_models, reads_memory

    if given.get("model") and not asks_models(chosen.operator):
        fail(f"--model: operator {chosen.operator!r} asks no model: add --operator agent")
    if given.get("from_memory") and not reads_memory(chosen.operator):
        fail(f"--from-memory: operator {chosen.operator!r} reads no directions: add --operator agent, or another")
    if given.get("command") and chosen.operator != COMMAND_OPERATOR:
        fail(f"--command: operator {chosen.operator!r} starts no program: add --operator {COMMAND_OPERATOR}")


def _seeds(settings: "RunConfig", seed: str | None) -> list[dict[str, str]]:
    """Return the names and sources of the problem's own seeds for the target, or of the one that ``seed`` names."""
    from avo.evaluator.known import known as known_card
    from avo.seeds import fitting, seed_source, seeds_of

    known = seeds_of(settings.problem)
    if seed is not None and seed not in known:
        if not (seed.endswith(".py") or Path(seed).exists()):
            fail(f"--seed-kernel: {seed!r} is neither a file nor a seed ({', '.join(known) or 'there is none'})")
        return [{"origin": seed, "source": read_source(Path(seed))}]
    if not known:
        fail(f"there is no seed for problem {settings.problem!r}: give one with --seed-kernel FILE")
    names = fitting(settings.problem, known_card(settings.target))
    if seed not in (None, *names):
        fail(f"--seed-kernel: {seed!r} is not for {settings.target}: choose one of {', '.join(names)}")
    names = names if seed is None else [seed]
    return [{"origin": known[name].file, "source": seed_source(settings.problem, name)} for name in names]
