"""Errors of the operators' room.

AgentError
+-- UnknownOperator     no operator of that name
+-- InvalidOperator     an installed plugin is not an operator
+-- CandidateTaken      another worker is evaluating the candidate at this moment
+-- NoModel             an operator that asks models has none
+-- NoEndpoint          it is not said where a model is, or with which key it is asked
+-- NoPrice             a limit in USD cannot be held
+-- ModelRefused        a model does not answer, and asking again would not help
|   +-- ContextOverflow the conversation is too long for it
+-- BudgetSpent         a budget has no room for another call
+-- StepLeft            whoever works on a step leaves it unfinished
"""


class AgentError(Exception):
    """Base of every error this package raises on purpose. ``str()`` is one line that says what to do."""


class UnknownOperator(AgentError):
    """No operator has this name."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown operator {name!r}: choose one of {', '.join(known)}")


class InvalidOperator(AgentError):
    """An entry point does not give an operator; the message names it."""


class CandidateTaken(AgentError):
    """Another worker is evaluating this candidate at this moment: an operator proposes another, or fails its step."""

    def __init__(self) -> None:
        super().__init__("another worker is evaluating this candidate: propose another")


class NoModel(AgentError):
    """An operator that asks models has none."""

    def __init__(self, operator: str) -> None:
        super().__init__(f"operator {operator!r} asks a language model: name one with --model NAME, or in [[models]]")


class NoEndpoint(AgentError):
    """It is not said where a model is, or with which key it is asked."""

    def __init__(self, model: str, key: str, url: str | None) -> None:
        where = f"{url} is not on this machine, so a key is needed" if url else "there is no key and no address"
        super().__init__(
            f"model {model!r} cannot be asked: {where}: set {key}"
            + ("" if url else ", or OPENAI_BASE_URL for a server on this machine")
        )


class NoPrice(AgentError):
    """A limit in USD cannot be held."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"the price of model {model!r} is not known, so no limit in USD can be held: give input_usd_per_mtok and "
            "output_usd_per_mtok in [[models]], or limit tokens"
        )


class ModelRefused(AgentError):
    """A model does not answer, and asking again would not help; the message is the endpoint's, and what to look at."""


class ContextOverflow(ModelRefused):
    """The conversation is too long for the model."""


class BudgetSpent(AgentError):
    """A budget has no room for another call; the message says which."""


class StepLeft(AgentError):
    """Whoever works on a step leaves it unfinished: it is abandoned, and may be taken up again."""
