"""The tools of a step, usable by a model's loop or by anyone else."""

from agents.tools.toolbox import Toolbox
from agents.tools.workbench import StepAttempt, Workbench

__all__ = ["StepAttempt", "Toolbox", "Workbench"]
