"""A profile of one case, written by hand: no judge takes part."""

from avo.evaluator.evaluation import CaseScore
from avo.evaluator.profile import InstructionCost, LaunchProfile, LineCost, Part, Profile, Role, Section, WhatIf
from avo.evaluator.target import ScoreKind

LOOP = Section(
    "loop at line 69", 69, 128.0, 3475.2, 180.0, {"tensor": 0.29, "exp": 0.154}, "latency",
    {"latency": 11.8, "tensor": 1.2}, {"latency": 2.5, "tensor": 1.5},
    (
        Role(
            4, {"scoreboard": 0.75, "pipe": 0.25},
            (InstructionCost(5488, "STS.128 [R3]", 71, "k = tl.load(", "scoreboard", "LDG.E.128", 71, 1000.0, 0.29),),
            (LineCost(71, "k = tl.load(" + "x" * 200, 1000.0, 0.29, {"scoreboard": 0.2, "pipe": 0.09}, "LDG.E.128"),),
            (InstructionCost(5504, "8 HGMMA.64x128x16", 76, "", "pipe", "", None, 40.0, 0.01),),
        ),
    ),
)  # fmt: skip
PROFILE = Profile(
    ScoreKind.PREDICTED,
    "h100",
    CaseScore("8k-full", 216.8, 200.0, "latency", {"tensor": 0.29}, 190.4, 240.0, ("what FOO takes",)),
    (Part("prologue", 0, 17.0, 0.085), Part("loop at line 69", 0, 180.0, 0.9), Part("launch overhead", 0, 3.0, 0.015)),
    (LaunchProfile("attention_kernel", 8192, 2, ("registers",), 31.03, 174, 0, 65536, 197.0, 1.48, (LOOP,)),),
    (
        WhatIf("one_more_cta", "one more CTA per SM", 100.0, 433.6, 100.0, 12.3, "registers 174 to 168"),
        WhatIf("free_loads", "loads free", 199.0, 217.9, 0.5, 0.8, ""),
        WhatIf("no_spills", "no spills", 200.0, 216.8, 0.0, 0.0, "has none"),
    ),
    None,
)
