"""A run in which every text that a candidate, an operator or a model writes tries to get out of its place."""

from dataclasses import replace

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation, Status
from avo.lineage_db.ablated import Edit
from avo.lineage_db.records import RunState, Selection, Submission
from avo.lineage_db.store import Store
from tests.avo.recorded import Recorded
from tests.avo.sample_run import ABLATION, START, make_evaluation
from tests.decisions import accept

MARKUP = "</script></title></style>--><img src=x onerror=alert(1)><b>'\"`"
"""What would end each element that text stands in, and begin one that runs a script."""
UNSTORABLE = "\0\ud800"
NOISE = "\x1b[2J\u202e {{ 7 * 7 }} {% raw %} | [a](javascript:alert(1))\n# heading\n"


def make_hostile_run(store: Store, name: str = "hostile") -> str:
    """Record a run whose every text is hostile; return its name."""

    def name_of(where: str) -> str:
        return f"{where} {MARKUP} {NOISE}"

    def text(where: str) -> str:
        return name_of(where) + UNSTORABLE

    run = Recorded(store, name)
    run.step(100.0, source="x = 1\n", change=text("seed"))
    step = run.claim(worker=MARKUP)
    run.evaluate(step, Evaluation(Status.CRASHED, text("message"), "h100", "quick", 1.0), (0,), text("failed change"))
    store.claims.select(step.id, Selection("island", (0,), None, None, text("island")), now=START)
    attempt = store.results.record_attempt(
        step_id=step.id,
        candidate=Candidate("mha", f"x = 2\ns = {text('source')!r}\n# {MARKUP}\n"),
        change=text("change"),
        parents=(0,),
        evaluation=make_evaluation(120.0),
        started=START,
        finished=START,
        hypothesis=text("hypothesis"),
    )
    said = Submission(attempt.id, text("said"), text("why"), text("expected"), text("seen"))
    store.results.conclude(
        step.id, attempt_id=attempt.id, parents=(0,), reason=text("reason"), now=START, decide=accept,
        submission=said, niche=lambda attempt: name_of("niche"),
    )  # fmt: skip
    edits = (Edit(text("edit"), 0.1, 0.01), Edit(text("needed edit"), None, why=text("why needed")))
    made = replace(
        ABLATION,
        run=name,
        version=1,
        line=(0, 1),
        edits=edits,
        minimal=f"# {text('minimal')}",
        releases=text("releases"),
    )
    store.ablations.keep(run.run.id, made, now=START)
    run.step(Evaluation(Status.UNVERIFIED, text("unverified"), "h100", "quick", 1.0), (0,), text("gluon"))
    store.journal.add_call(
        run.run.id, None, model=name_of("model"), input_tokens=1, cached_tokens=0, output_tokens=1, usd=None,
        seconds=1.0, error=text("error"), now=START,
    )  # fmt: skip
    store.journal.intervene(
        run.run.id, after_step=0, level=name_of("level"), reason=text("stall"), directions=[text("direction")],
        source=name_of("supervisor"), restart_from=0, now=START, seen=0,
    )  # fmt: skip
    store.set_run_state(run.run.id, RunState.FINISHED, now=START, config={"evaluator_command": text("command")})
    return name
