"""flag-gems: every operator that torch's own test samples cover, against torch."""

# mypy: disable-error-code="import-not-found,misc,no-any-return"
# The packages are not installed where types are checked.

import itertools
import os
from typing import Any

import torch

from bench.packages.harness import Trial

SAMPLES = 4
"""Inputs per operator and type, spread over those that torch's tests have."""
_RANDOM = {"normal", "randn", "rand", "rand_like", "randn_like", "bernoulli", "multinomial", "uniform", "exponential"}
_OTHER_SIGNATURES = {"batch_norm", "mse_loss", "unique_consecutive"}
"""Operators that take their arguments as aten does, which samples for ``torch.nn.functional`` do not fit."""
_TIES = {"sort", "topk"}
"""Which of equal elements comes first is theirs to choose: the values alone are compared."""


def run(trial: Trial) -> None:
    """Call ``flag_gems.ops`` on torch's sample inputs in float32, bfloat16, int32 and bool."""
    os.environ.setdefault("GEMS_VENDOR", "nvidia")
    import flag_gems
    from torch.testing._internal.common_methods_invocations import op_db

    for info in op_db:
        name = info.name.rpartition(".")[2]
        function = getattr(flag_gems, name, None)
        if info.variant_test_name or name in _RANDOM | _OTHER_SIGNATURES or not callable(function):
            continue
        for dtype in (torch.float32, torch.bfloat16, torch.int32, torch.bool):
            if dtype not in info.dtypes:
                continue
            samples = list(itertools.islice(info.sample_inputs("cpu", dtype, requires_grad=False), 64))
            for i in range(0, len(samples), max(1, len(samples) // SAMPLES)):
                _try(trial, f"{name} {str(dtype)[6:]} {i}", function, info.op, samples[i])


def _try(trial: Trial, name: str, function: Any, reference: Any, sample: Any) -> None:
    if sample.kwargs.get("out") is not None:
        return

    def call(function: Any) -> Any:
        result = function(sample.input, *sample.args, **sample.kwargs)
        return result[0] if name.partition(" ")[0] in _TIES else result

    try:
        call(reference)  # some samples are there to be refused
    except Exception:
        return
    trial.case(name, lambda: call(function), lambda: call(reference))
