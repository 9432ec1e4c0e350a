"""Seeds of ``gqa``: those of ``mha``."""

from avo.seeds.mha import SEEDS as SEEDS
