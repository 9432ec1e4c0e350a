"""A judge with workers on the stub card in a folder: ``python -m tests.evaluator.cuda.stub_card.judge FOLDER ...``."""

import sys

from avo.evaluator.__main__ import main
from avo.evaluator.cuda.contender import ask_card, start_worker

if __name__ == "__main__":
    paths = [f"{name}={sys.argv[1]}" for name in ("LD_LIBRARY_PATH", "TRITON_LIBCUDA_PATH")]
    command = ("env", *paths, sys.executable, "-m", "tests.evaluator.cuda.stub_card.worker")
    start_worker.__defaults__, ask_card.__defaults__ = (command, (), None), (command, None)
    del sys.argv[1]
    sys.exit(main())
