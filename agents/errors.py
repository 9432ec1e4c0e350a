"""Errors of variation operators.

AgentError
+-- UnknownOperator     no operator of that name
+-- InvalidOperator     an installed plugin is not an operator
+-- CandidateTaken      another worker is evaluating the candidate right now
+-- LooksSpent          the step may not look at so many candidates
+-- NoModel             the operator needs a language model and none is named
+-- NoProgram           the operator ``command`` cannot start the user's program
+-- NoEndpoint          a model's address or key is missing
+-- NoPrice             a limit in USD is set, but a model's price is unknown
+-- ModelRefused        a model does not answer, and a retry would not help
|   +-- ContextOverflow the conversation is too long for it
+-- ModelFailing        a model keeps failing, and another can be asked
+-- ProgramFailed       a program that works as the operator failed
+-- BudgetSpent         a budget does not allow another model call or evaluation
+-- StepLeft            a step was left unfinished
"""


class AgentError(Exception):
    """Base of every error this package raises on purpose. ``str()`` is one line that says what to do."""


class UnknownOperator(AgentError):
    """No operator has this name."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown operator {name!r}: choose one of {', '.join(known)}")


class InvalidOperator(AgentError):
    """An entry point does not lead to an operator; the message names it."""


class CandidateTaken(AgentError):
    """Another worker is evaluating this candidate right now: propose another one, or fail the step."""

    def __init__(self) -> None:
        super().__init__("another worker is evaluating this candidate: propose another")


class LooksSpent(AgentError):
    """The step may not look at so many candidates."""

    def __init__(self, wanted: int, left: int) -> None:
        super().__init__(f"{wanted} candidates to look at, and {left} looks are left: look at fewer")


class NoModel(AgentError):
    """The operator needs a language model and none is named."""

    def __init__(self, operator: str) -> None:
        super().__init__(f"operator {operator!r} asks a language model: name one with --model NAME, or in [[models]]")


class NoProgram(AgentError):
    """The operator ``command`` cannot start the user's program; the message says what is missing or wrong."""


class NoEndpoint(AgentError):
    """A model's address or key is missing."""

    def __init__(self, model: str, key: str, url: str | None) -> None:
        where = f"{url} is not on this machine, so a key is needed" if url else "there is no key and no address"
        super().__init__(
            f"model {model!r} cannot be asked: {where}: set {key}"
            + ("" if url else ", or OPENAI_BASE_URL for a server on this machine")
        )


class NoPrice(AgentError):
    """A limit in USD is set, but a model's price is unknown."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"the price of model {model!r} is not known, so no limit in USD can be held: give input_usd_per_mtok and "
            "output_usd_per_mtok in [[models]], or limit tokens"
        )


class ModelRefused(AgentError):
    """A model does not answer, and a retry would not help. The message is the endpoint's, with what to check."""


class ContextOverflow(ModelRefused):
    """The conversation is too long for the model.

    ``context_tokens`` is the size of the model's context, where that is known.
    """

    def __init__(self, message: str, context_tokens: int | None = None) -> None:
        super().__init__(message)
        self.context_tokens = context_tokens


class ModelFailing(AgentError):
    """A model keeps failing, and another can be asked instead. The message is the last failure."""


class ProgramFailed(AgentError):
    """A program that works as the operator ended before it submitted, and left no correct attempt; the message says
    how it ended.
    """


class BudgetSpent(AgentError):
    """A budget does not allow another model call or evaluation; the message says which budget."""


class StepLeft(AgentError):
    """A step was left unfinished: it is abandoned, and another step may resume it."""
