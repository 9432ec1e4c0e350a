"""Contents of buffers that are kept, to start again from."""

from collections.abc import Sequence

from evaluator.executor.allocation import Allocation


class Kept:
    """What some buffers hold, and which of their elements are marked."""

    def __init__(self, memory: Sequence[Allocation]) -> None:
        tensors = [each for a in memory for each in (a.data, a.written, a.initialised) if each is not None]
        self._pairs = [(tensor, tensor.clone()) for tensor in tensors]

    def restore(self) -> None:
        """Give the buffers what they held."""
        for tensor, held in self._pairs:
            tensor.copy_(held)
