"""Dense attention, forward: what ``mha`` and ``gqa`` have in common."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from avo.evaluator.problem import Baseline, Call, Case, Expected, Output, Problem, Wrong
from avo.evaluator.problems.dense import (
    OUTPUTS,
    attend,
    expected,
    logits,
    longer,
    make_qkv,
    of_any_length,
    outputs,
    plant_key,
    qkv,
    shares,
    softmax_scale,
    total_bytes,
    value_dim,
    views,
)
from avo.evaluator.problems.figures import Figures
from avo.evaluator.problems.refusals import of_no_blocks, of_sharing, refusal
from avo.evaluator.problems.settings import in_setting
from avo.evaluator.problems.variants import diagnose_variant, small_variants
from avo.evaluator.problems.visible import (
    dense,
    flops_an_element,
    further_inputs,
    further_scalars,
    make_further,
    with_sink,
)
from avo.evaluator.problems.wording import meaning
from avo.evaluator.setting import Setting

if TYPE_CHECKING:
    from random import Random

    import torch


@dataclass(frozen=True)
class Attention:
    """Dense attention: ``def attention(q, k, v, out, lse, *, causal: bool, scale: float) -> None``.

    q and out are [batch, heads, q_len, head_dim], k and v [batch, kv_heads, kv_len, head_dim], with q_len <= kv_len.
    lse is float32 [batch, heads, q_len], contiguous, the natural logarithm of the sum of exponentials of the scaled
    scores. Query i sees key j when not causal or ``j <= i + kv_len - q_len``. Head h uses KV head
    ``h // (heads / kv_heads)``.
    """

    name: str
    correctness_cases: tuple[Case, ...]
    suites: Mapping[str, tuple[Case, ...]]
    baselines: tuple[Baseline, ...]
    figures: tuple[Figures, ...] = ()
    """What was published in other settings."""
    other: str = ""
    """Name of the problem whose query heads share KV heads if those of this one do not, and the other way round."""
    entry: str = field(default="attention", init=False)
    outputs: tuple[Output, ...] = field(default=OUTPUTS, init=False)

    def call(self, case: Case) -> Call:
        """Return the tensors and scalars of ``case``."""
        scalars = (("causal", case.causal), ("scale", softmax_scale(case)), *further_scalars(case))
        return Call(case.name, (*qkv(case), *further_inputs(case), *outputs(case)), scalars)

    def at_other_lengths(self, case: Case, chance: "Random") -> Case:
        """Return ``longer``."""
        return longer(case, chance)

    def at_length(self, case: Case, length: int, chance: "Random") -> Case:
        """Return ``of_any_length``."""
        return of_any_length(case, length, chance)

    def flops(self, case: Case) -> int:
        """Return ``flops_an_element`` times the elements of a key and of a value."""
        return flops_an_element(case) * (case.head_dim + value_dim(case))

    def least_bytes(self, case: Case) -> int:
        """Return the bytes of all tensors."""
        return total_bytes(self.call(case))

    def make_inputs(self, case: Case, seed: int) -> "dict[str, torch.Tensor]":
        """Return the flat storages of all inputs."""
        return {**make_qkv(case, seed), **make_further(case, seed)}

    def reference(
        self, case: Case, inputs: "Mapping[str, torch.Tensor]", of: str, batch: int, head: int, rows: "torch.Tensor"
    ) -> Mapping[str, Expected]:
        """Return out and lse: see ``Problem.reference``."""
        view = views(case, inputs)
        v = view["v"][batch, head // (case.heads // case.kv_heads)].double()
        scores = logits(case, view, batch, head, rows)
        return expected(*attend(*with_sink(scores, v, inputs, head), view["q"].dtype))

    def plant(
        self, case: Case, inputs: "Mapping[str, torch.Tensor]", chance: "Random"
    ) -> Mapping[str, tuple[int, int, int]]:
        """Give one query a key of its own: see ``plant_key``."""
        return plant_key(case, inputs, chance)

    def diagnose(self, case: Case, inputs: "Mapping[str, torch.Tensor]", wrong: Wrong) -> str:
        """See ``avo.evaluator.problems.diagnosis``, and ``variants`` for what only some cases have."""
        from avo.evaluator.problems.diagnosis import diagnose

        if further_inputs(case) or further_scalars(case):
            return diagnose_variant(case, inputs, wrong)
        return diagnose(self, case, inputs, wrong)

    def refusal(self, setting: Setting) -> str:
        """See ``avo.evaluator.setting.Settable``."""
        return refusal(setting, of_no_blocks(self.name, setting), of_sharing(self, self.other, setting))

    def meaning(self, setting: Setting) -> str:
        """See ``avo.evaluator.setting.Settable``."""
        return meaning(setting)

    def in_setting(self, setting: Setting) -> Problem:
        """See ``avo.evaluator.setting.Settable``."""
        own = tuple(map(dense, self.correctness_cases))
        return in_setting(self, setting, small_variants(setting, own, grouped=shares(self)), self.figures)
