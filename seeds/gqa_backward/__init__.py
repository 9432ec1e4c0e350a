"""Seeds of ``gqa_backward``: those of ``mha_backward``."""

from avo.seeds.mha_backward import SEEDS as SEEDS
