"""The tools of a step, for a model's loop or any other caller."""

from avo.agents.tools.toolbox import Toolbox
from avo.agents.tools.workbench import StepAttempt, Workbench

__all__ = ["StepAttempt", "Toolbox", "Workbench"]
