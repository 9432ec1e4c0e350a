"""The GPU that a candidate's process believes to have: it answers questions, and cannot be used."""

import torch
import triton

from avo.evaluator.capture.tensors import DEVICE
from avo.evaluator.compiling.gpu import Driver, cuda_answers
from avo.evaluator.target import Target


def install(target: Target) -> None:
    """Answer torch's and triton's questions about the device from ``target``, in this process, for good."""
    triton.runtime.driver.set_active(Driver(target, DEVICE.index))
    for name, answer in cuda_answers(target).items():
        setattr(torch.cuda, name, answer)
