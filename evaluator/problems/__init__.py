"""The problems that candidates are written for."""

from avo.evaluator.problem import Problem
from avo.evaluator.problems.backward import GQA_BACKWARD, MHA_BACKWARD
from avo.evaluator.problems.decode import DECODE
from avo.evaluator.problems.fsa import FSA
from avo.evaluator.problems.fsa_backward import FSA_BACKWARD
from avo.evaluator.problems.gqa import GQA
from avo.evaluator.problems.mha import MHA

PROBLEMS: dict[str, Problem] = {
    problem.name: problem for problem in (MHA, GQA, FSA, MHA_BACKWARD, GQA_BACKWARD, FSA_BACKWARD, DECODE)
}
