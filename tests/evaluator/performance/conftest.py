"""Makes the benchmark's kernels importable: the model is tested on the variants that ``bench.model`` reports."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3]))
