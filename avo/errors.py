"""Errors of a run. ``str()`` is one line that says what to do.

AvoError
+-- ConfigError        a setting that is unknown, of the wrong type or impossible
+-- CanaryFault        the judge does not tell a wrong or a slow kernel from the seed
+-- SeedFault          no seed passes the judge, so there is nothing to evolve
+-- Incomparable       scores of runs that do not mean the same
+-- NotReproduced      a version is no longer correct where it is judged again
+-- MetricsUnavailable the metrics of a run cannot be served
+-- RepositoryFailed   a lineage cannot be written as a git repository
+-- RunBusy            another process is working on the run
+-- RunFailed          the run cannot go on, through no fault of a candidate; it can be resumed
    +-- RayGone        the processes that its workers live in have ended
    +-- NoAttempts     its steps end without an attempt, one after the other
"""


class AvoError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(AvoError):
    """A setting is unknown, of the wrong type or impossible; the message names where it came from."""


class SeedFault(AvoError):
    """No seed is correct; the message carries the verdict. Resuming would judge the same seeds again."""

    def __init__(self, verdict: str) -> None:
        super().__init__(f"no seed passes: {verdict}; start another run from a kernel that avo evaluate finds correct")


class CanaryFault(AvoError):
    """The judge cannot be trusted."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the judge cannot be trusted: {what}: look at avo doctor, and at the evaluator's command if you gave one"
        )


class Incomparable(AvoError):
    """The scores of runs do not mean the same, or a run has none."""


class NotReproduced(AvoError):
    """A version is not correct where it is judged again; the message carries the verdict."""


class MetricsUnavailable(AvoError):
    """The metrics of a run cannot be served: a package is missing, or the port is taken."""


class ServeUnavailable(AvoError):
    """The page cannot be served: nobody can listen at its address."""


class RepositoryFailed(AvoError):
    """The lineage cannot be written as a git repository."""


class RunBusy(AvoError):
    """Another process is working on the run."""


class RunFailed(AvoError):
    """The run cannot go on. Its record is kept, and it can be resumed."""


class RayGone(RunFailed):
    """Ray's processes have ended: neither steps nor new workers will ever arrive."""


class NoAttempts(RunFailed):
    """The operator's steps end without an attempt, one after the other; the message says how the last one did."""
