"""A GPU worker on the stub card: ``python -m tests.evaluator.cuda.stub_card.worker``, with LD_LIBRARY_PATH."""

import sys

from avo.evaluator.cuda import worker
from tests.evaluator.cuda.stub_card.launches import StubDevice
from tests.evaluator.cuda.stub_card.runtime import StubCuda

if __name__ == "__main__":
    sys.exit(worker.main(lambda: StubDevice(StubCuda())))
