"""Checks at benchmark shapes, where not all programs can be executed: no work is missing, and a secret sample is right.

The sample consists of output rows. The launches are followed backwards: which programs store these rows, what those
read, which programs store that, and so on. Exactly these programs run, in the plan and the batch that are scored. A row
is right if the programs that make it are, whatever the others do.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.executor import Allocation, Execution
from avo.evaluator.executor.space import any_true
from avo.evaluator.judging.buffers import apart
from avo.evaluator.judging.compare import Checked, Rows, compare, only, settled, uncovered
from avo.evaluator.judging.execution import PlanRun
from avo.evaluator.judging.refusal import Refused, passed
from avo.evaluator.judging.stages import Marks, Stage, no_marks
from avo.evaluator.plan import Role
from avo.evaluator.problem import Case, Problem, TensorSpec, rows_of

SAMPLE_ROWS = 32
"""Rows of one group of the sample."""
MOST_FLOP = 3e11
"""Most FLOPs of matrix products in the programs that a sample depends on."""
MOST_HINT_ELEMENTS = 1e8
"""Most elements that are computed to check what a plan states to the compiler at one benchmark shape: a second or
two of processor time.
"""
SHARED = 10
"""How many times a sample's FLOPs its groups may take together, if they are more than one. A group takes many programs
where all add to the same rows.
"""
LEAST_WORK = 0.999
"""Share of the useful FLOPs that a plan with matrix products must be seen to compute at a benchmark shape."""


@dataclass(frozen=True)
class Sample:
    """How much of the outputs at one benchmark shape is checked; at least one group of rows."""

    groups: int
    """Largest number of groups."""
    flop: float
    """About the largest number of FLOPs of matrix products for all groups, if one program makes one group."""
    races: bool = False
    """Whether the sanitiser looks for races, among programs of the sample and some that meet others."""

    def groups_of(self, flop: float) -> int:
        """Return how many groups of rows are drawn where a program does ``flop`` FLOPs of matrix products."""
        return max(1, min(self.groups, int(self.flop / max(flop, 1.0))))


EACH_TIME, BEFORE_ACCEPTANCE, ELSEWHERE = Sample(6, 1e10), Sample(32, 5e10, races=True), Sample(3, 5e9, races=True)
_OTHER_HEADS, _OTHER_ROWS = 8, 64
"""Limits on what is compared besides the sample: the programs that make the sample often make more rows. At most this
many heads of these, and this many rows of each, are compared too.
"""
_MEETINGS = 4
"""Most pairs of programs of one kind that are run because they meet."""


@dataclass(frozen=True)
class BenchmarkCheck:
    """A plan at a benchmark shape, its stages, and what it is checked against."""

    problem: Problem
    case: Case
    inputs: Mapping[str, torch.Tensor]
    run: PlanRun
    stages: Sequence[Stage]
    sample: Sample = EACH_TIME

    def check(self, chance: random.Random) -> Checked:
        """Execute the programs that make a sample of the outputs, and compare that with the reference.

        Raises ``Refused`` for a plan that does less work than the case takes, and for what the execution finds.
        """
        self._refuse_missing_work()
        for stage in self.stages:
            stage.check_hints(chance, MOST_HINT_ELEMENTS / len(self.stages))
        programs, wanted = self._sampled(chance)
        chosen, others = self._stored(programs)
        made = settled(self.problem, self.case, self._marked(chosen), self._marked(others))
        rows = {of: made[of] & (wanted[of] | some_of(made[of], chance)) for of in made}
        either = {i: others[i].logical_or_(chosen[i]) for i in chosen}
        passed(uncovered(self.problem, self.case, self._marked(either)))
        if not self._check_accesses(programs, chance):
            self._execute(programs, self.run)
        outputs = only(self.problem, self.case, self._marked(chosen), rows)
        return compare(self.problem, self.case, self.inputs, outputs, whole=False)

    @property
    def _outputs(self) -> dict[str, int]:
        return {buffer.name: i for i, buffer in enumerate(self.run.plan.buffers) if buffer.role is Role.OUTPUT}

    def _marked(self, marks: Marks) -> dict[str, Allocation]:
        allocations = self.run.buffers.allocations
        return {name: replace(allocations[i], written=marks[i]) for name, i in self._outputs.items()}

    def _refuse_missing_work(self) -> None:
        """Refuse a plan with matrix products that does fewer of them than the case takes."""
        useful = self.problem.flops(self.case)
        counted = sum(stage.flops(_all(stage)) for stage in self.stages)
        if any(stage.kernel.multiplies for stage in self.stages) and counted < LEAST_WORK * useful:
            message = f"{counted:.3g} FLOPs of matrix products are counted, but {useful:.3g} are needed"
            raise Refused(Fault(Status.INCORRECT, f"{message}: work is missing at this shape"))

    def _sampled(self, chance: random.Random) -> tuple[list[torch.Tensor], Rows]:
        """Return the programs of each stage that a sample depends on, and the sample.

        It is smaller where they are too many.
        """
        each = max((stage.flops(_all(stage)) / stage.launch.programs for stage in self.stages), default=0.0)
        groups = self.sample.groups_of(each)
        meeting = [_meeting(stage, chance) if self.sample.races else _NONE for stage in self.stages]
        while True:
            rows = {of: random_groups(shape, share, chance) for of, shape, share in self._shares(groups)}
            programs = self._makers(rows, meeting)
            pairs = zip(self.stages, programs, strict=True)
            most = MOST_FLOP if groups == 1 else min(MOST_FLOP, SHARED * self.sample.flop)
            excessive = [(stage, mine) for stage, mine in pairs if stage.flops(mine) > most]
            if not excessive:
                return programs, rows
            if groups == 1 and any(mine.numel() for mine in meeting):
                meeting = [_NONE] * len(self.stages)
                continue
            if groups == 1:
                stage, mine = excessive[-1]
                message = f"{SAMPLE_ROWS} rows depend on {mine.numel()} programs of kernel {stage.kernel.name}"
                raise Refused(Fault(Status.UNSUPPORTED, f"{message}: too many to execute"))
            groups //= 2

    def _shares(self, groups: int) -> Iterator[tuple[str, tuple[int, ...], int]]:
        """Yield each kind of rows with its shape, [batch, heads, rows], and its share of the groups, one at least."""
        kinds, specs = rows_of(self.problem.outputs), self._specs
        for of, (output, *_) in kinds.items():
            yield of, specs[output.name].shape[:3], max(groups // len(kinds), 1)

    def _makers(self, rows: Rows, others: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the programs of each stage that the outputs' ``rows`` and ``others``, of each stage, depend on."""
        buffers = self.run.buffers
        wanted = no_marks(buffers, [i for i, a in enumerate(buffers.allocations) if not a.readonly])
        kinds, specs = {output.name: output.rows for output in self.problem.outputs}, self._specs
        for name, i in self._outputs.items():
            wanted[i].as_strided(specs[name].shape, specs[name].held.strides)[rows[kinds[name]]] = True
        found: list[torch.Tensor] = []
        for stage, mine, before in reversed(list(zip(self.stages, others, self._changed_before, strict=True))):
            found.insert(0, _all(stage) if stage.whole else self._makers_in(stage, wanted, mine, before))
        return found

    @property
    def _changed_before(self) -> list[frozenset[int]]:
        """The buffers that the stages before each stage may change."""
        changed = [stage.kernel.may_write(stage.launch.args) for stage in self.stages]
        return [frozenset[int]().union(*changed[:place]) for place in range(len(changed))]

    @property
    def _specs(self) -> dict[str, TensorSpec]:
        return {spec.name: spec for spec in self.problem.call(self.case).tensors}

    def _makers_in(self, stage: Stage, wanted: Marks, others: torch.Tensor, before: frozenset[int]) -> torch.Tensor:
        """Return ``others`` and the programs that ``wanted`` elements depend on.

        In ``wanted``, what they read takes the place of what they store over what stages before may have stored, in
        the buffers ``before``.
        """
        args = stage.launch.args
        read = stage.kernel.may_read(args) & wanted.keys()
        some = any(any_true(wanted[i]) for i in stage.kernel.may_write(args) & wanted.keys())
        fresh = torch.cat((others, stage.writers(wanted) if some else _NONE)).unique()
        chosen, needed = _NONE, Marks()
        while fresh.numel():
            chosen = torch.cat((chosen, fresh)).unique()
            if not read:
                break
            marks = no_marks(self.run.buffers, read)
            stage.mark(marks, fresh, reads=True)
            for i in read:
                needed[i] = needed[i] | marks[i] if i in needed else marks[i]
            fresh = _NONE
            if read & stage.kernel.may_write(args):
                fresh = stage.writers(marks)
                fresh = fresh[~torch.isin(fresh, chosen)]
        self._store_over(wanted, stage, chosen, before)
        for i in needed:
            wanted[i] |= needed[i]
        return chosen

    def _store_over(self, marks: Marks, stage: Stage, programs: torch.Tensor, before: frozenset[int]) -> None:
        """Take out of ``marks`` what ``programs`` of a stage surely store over what stages before may have stored.

        These stages may have stored in the buffers ``before``.
        """
        replaced = stage.kernel.overwritten(stage.launched) & marks.keys() & before
        if replaced and programs.numel():
            stored = no_marks(self.run.buffers, replaced)
            stage.mark(stored, programs)
            for i in replaced:
                marks[i] &= stored[i].logical_not_()

    def _check_accesses(self, programs: Sequence[torch.Tensor], chance: random.Random) -> bool:
        """Check where the given programs of each stage read and write, in buffers so far apart that an access that
        leaves one meets no other. They are executed for it only if they may race or wait for each other.

        The first and the last program of each stage are checked too, unless some wait: they come closest to the ends of
        tensors.

        Returns whether they have left what they leave in the run's own buffers: where they were executed, unless they
        may look at addresses.
        """
        addresses = apart([buffer.nbytes for buffer in self.run.plan.buffers], chance)
        waiting = any(stage.kernel.takes_turns for stage in self.stages)
        if executed := self.sample.races or waiting:
            far = replace(self.run, buffers=self.run.buffers.at(addresses))
            self._execute(programs, far, sanitize=self.sample.races)
        for stage, chosen in zip(self.stages, programs, strict=True):
            if not waiting:
                ends = torch.tensor([0, stage.launch.programs - 1])
                checked = torch.cat((ends, chosen[: 0 if self.sample.races else None])).unique()
                _refuse_uncounted(stage, checked, stage.check_accesses(addresses, checked))
        return executed and not any(stage.kernel.shows_addresses for stage in self.stages)

    def _stored(self, programs: Sequence[torch.Tensor]) -> tuple[Marks, Marks]:
        """Return marks of what is left in the outputs of the given programs of each stage, and of all others.

        Inputs that they might store to are marked, too.
        """
        inputs = {i for i, allocation in enumerate(self.run.buffers.allocations) if allocation.readonly}
        doubtful = {i for stage in self.stages for i in stage.kernel.may_write(stage.launch.args) & inputs}
        chosen, others = (no_marks(self.run.buffers, doubtful.union(self._outputs.values())) for _ in range(2))
        for stage, mine, before in zip(self.stages, programs, self._changed_before, strict=True):
            changed = stage.kernel.may_write(stage.launch.args)
            self._store_over(others, stage, mine, before)
            for marks, some in ((chosen, mine), (others, _rest(stage, mine))):
                if some.numel() and changed & marks.keys():
                    stage.mark(marks, some)
        return chosen, others

    def _execute(self, programs: Sequence[torch.Tensor], run: PlanRun, *, sanitize: bool = False) -> None:
        """Run the given programs of each stage, on memory as it is before the plan begins."""
        run.buffers.poison()
        for launch, stage, chosen in zip(run.launches(), self.stages, programs, strict=True):
            if not chosen.numel():
                continue
            part, script = (None, None) if stage.whole else (chosen, stage.launched.script)
            lockstep = stage.launched.lockstep
            found = run.run(launch, part, sanitize=sanitize, script=script, lockstep=lockstep)
            _refuse_uncounted(stage, chosen, found)


def _refuse_uncounted(stage: Stage, programs: torch.Tensor, execution: Execution) -> None:
    """Refuse programs that loop more often than was counted."""
    if any(int(more.max()) > 0 for more in stage.uncounted(programs, execution)):
        message = f"programs of kernel {stage.kernel.name} loop more often than was counted before they ran"
        raise Refused(Fault(Status.UNSUPPORTED, f"{message}: the work cannot be counted"))


def random_groups(shape: Sequence[int], groups: int, chance: random.Random) -> torch.Tensor:
    """Return random groups of rows, bool [batch, heads, rows] of ``shape``."""
    batch, heads, rows = shape
    wanted = torch.zeros(batch, heads, rows, dtype=torch.bool)
    for _ in range(groups):
        start = chance.randrange(0, rows, SAMPLE_ROWS)
        wanted[chance.randrange(batch), chance.randrange(heads), start : start + SAMPLE_ROWS] = True
    return wanted


def some_of(made: torch.Tensor, chance: random.Random) -> torch.Tensor:
    """Return some of the rows that were ``made``, chosen at random, bool [batch, heads, rows]."""
    some = torch.zeros_like(made)
    heads = made.any(-1).nonzero().tolist()
    for batch, head in chance.sample(heads, min(_OTHER_HEADS, len(heads))):
        rows = made[batch, head].nonzero()[:, 0].tolist()
        some[batch, head, chance.sample(rows, min(_OTHER_ROWS, len(rows)))] = True
    return some


_NONE = torch.zeros(0, dtype=torch.int64)


def _meeting(stage: Stage, chance: random.Random) -> torch.Tensor:
    """Return the programs of some pairs of a stage's programs that access the same memory, in order."""
    found = () if stage.whole else stage.race_candidates()
    some = (chance.sample(pairs.tolist(), min(len(pairs), _MEETINGS)) for pairs in found)
    return torch.tensor(sorted({program for pairs in some for pair in pairs for program in pair}), dtype=torch.int64)


def _all(stage: Stage) -> torch.Tensor:
    return torch.arange(stage.launch.programs)


def _rest(stage: Stage, programs: torch.Tensor) -> torch.Tensor:
    left = torch.ones(stage.launch.programs, dtype=torch.bool)
    left[programs] = False
    return left.nonzero().flatten()
