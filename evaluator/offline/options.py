"""The options of a session."""

from dataclasses import dataclass
from typing import Literal

from avo.evaluator.offline.errors import OfflineError

_KNOWN = {
    "on_fault": ("collect", "raise"),
    "unsupported": ("raise", "skip"),
    "autotune": ("fitting", "first", "all"),
    "level": ("source", "compiled"),
}
"""The values of options that have a few."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a session runs launches: each option as in ``offline``."""

    level: Literal["source", "compiled"]
    execute: bool
    sanitize: bool | None
    on_fault: Literal["collect", "raise"]
    unsupported: Literal["raise", "skip"]
    autotune: Literal["fitting", "first", "all"]
    check_order: bool
    check_padding: bool
    check_devices: bool
    count: bool
    claim_cuda: bool
    temporaries_bytes: int
    deadline_s: float | None
    threads: int | None

    def __post_init__(self) -> None:
        for name, known in _KNOWN.items():
            if (value := getattr(self, name)) not in known:
                raise OfflineError(f"{name} must be one of {', '.join(known)}, not {value!r}")
        asked = {
            "level='compiled'": self.level == "compiled",
            "sanitize=True": self.sanitize,
            "on_fault='raise'": self.on_fault == "raise",
            "check_order=True": self.check_order,
            "count=True": self.count,
        }
        for option, chosen in asked.items():
            if chosen and not self.execute:
                raise OfflineError(f"{option} needs kernels to be executed, and execute=False only counts their work")

    @property
    def sanitizes(self) -> bool:
        """Whether the sanitiser runs, by default where launches are executed."""
        return self.execute if self.sanitize is None else self.sanitize
