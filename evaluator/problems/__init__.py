"""The problems that candidates are written for."""

from evaluator.problem import Problem
from evaluator.problems.mha import MHA

PROBLEMS: dict[str, Problem] = {MHA.name: MHA}
