"""Trains a tiny model by a package's ``attention``, executed on the CPU, and the same by torch; prints both losses.

python -m tests.avo.export.training FOLDER PACKAGE STEPS    FOLDER has the package; its kernels take head dim 64
"""

import importlib
import json
import sys
from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from avo.evaluator.offline import offline

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
_TOKENS, _WIDTH, _HEADS, _DIM = 20, 32, 2, 64


def losses(attend: Attend, steps: int, place: str) -> list[float]:
    """Return the loss of each step of learning a sequence by heart."""
    torch.manual_seed(0)
    embedded = torch.nn.Parameter(torch.randn(_TOKENS, _WIDTH))
    projected = torch.nn.Parameter(torch.randn(3, _WIDTH, _HEADS * _DIM) / _WIDTH**0.5)
    out = torch.nn.Parameter(torch.randn(_HEADS * _DIM, _TOKENS) / (_HEADS * _DIM) ** 0.5)
    optimizer = torch.optim.Adam([embedded, projected, out], lr=3e-3)
    tokens = torch.randint(_TOKENS, (41,), generator=torch.Generator().manual_seed(1))
    found = []
    for _ in range(steps):
        made = (embedded[tokens[:-1]] @ projected).view(3, 1, -1, _HEADS, _DIM).transpose(2, 3)
        seen = attend(*(each.to(torch.bfloat16).to(place) for each in made)).float().cpu()
        loss = cross_entropy(seen[0].transpose(0, 1).flatten(1) @ out, tokens[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def main(folder: str, package: str, steps: int) -> None:
    """Print the losses by the package and by torch, and how many backward passes were the kernel's."""
    sys.path.insert(0, folder)
    by_package, operators = (importlib.import_module(f"{package}{module}") for module in ("", "._operators"))
    launched = []
    launch = operators.launch

    def counted(kernel: object, *others: object) -> None:
        launched.append(kernel)
        launch(kernel, *others)

    operators.launch = counted

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = by_package.attention(q, k, v, is_causal=True, on_unsupported="raise")
        return found

    with offline(target="h100") as session:
        mine = losses(attend, steps, "cuda")
    backward = sum(kernel.backward for kernel in launched)
    torchs = losses(lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True), steps, "cpu")
    print(json.dumps({"mine": mine, "torch": torchs, "backward": backward, "clean": session.report().clean}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
