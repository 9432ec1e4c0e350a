"""The problems that candidates are written for."""

from evaluator.problem import Problem
from evaluator.problems.backward import GQA_BACKWARD, MHA_BACKWARD
from evaluator.problems.decode import DECODE
from evaluator.problems.fsa import FSA
from evaluator.problems.fsa_backward import FSA_BACKWARD
from evaluator.problems.gqa import GQA
from evaluator.problems.mha import MHA

PROBLEMS: dict[str, Problem] = {
    problem.name: problem for problem in (MHA, GQA, FSA, MHA_BACKWARD, GQA_BACKWARD, FSA_BACKWARD, DECODE)
}
