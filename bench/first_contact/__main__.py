"""Ten minutes on a borrowed card: gathers evidence in the order of its value, and packs it into one archive.

python -m bench.first_contact [--minutes 10] [--out FOLDER] [--steps NAME,...] [--list]

Needs torch, Triton and numpy, and a CUDA GPU. What else is needed, msgspec, numba, nvidia-ml-py and libcst, is fetched
by pip into the folder if it is not installed. Each step runs in a process and within a limit of its own, and has the
time that those before it have left; what fails is noted, and the next begins. Send the archive back as data: attach it
to an issue. ``avo calibrate`` reads its files ``measured-*.json``.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from bench.first_contact.runner import Step, pack, perform

STEPS = (
    Step("state", 20, 60, "the machine, its cards and what is installed"),
    Step("worker", 40, 90, "the first lines of a GPU worker, raw"),
    Step("same", 120, 180, "a seed against itself, in twenty pairs of processes"),
    Step("doctor", 30, 90, "what a run would find missing"),
    Step("seed", 50, 120, "one seed, judged"),
    Step("faults", 75, 150, "kernels that crash, hang or stray, and a right one after each"),
    Step("predicted", 100, 240, "predicted against measured"),
    Step("do_bench", 20, 60, "the same seed through triton.testing.do_bench"),
    Step("baselines", 40, 150, "libraries"),
    Step("canary", 40, 150, "a wrong and a slow variant"),
    Step("variants", 45, 900, "40 variants of the seed, for avo calibrate"),
)
"""In the order of their value. Their shares are less than ten minutes by what packing and processes that die slowly
take, so that each step begins, however slow the card is.
"""
CLOCKS = "clocks"
"""The step beside the others: it logs clocks, power and temperature."""
REPOSITORY = Path(__file__).parents[2]
_FETCHED = {each: each for each in ("msgspec", "numba", "libcst")} | {"pynvml": "nvidia-ml-py"}
"""Modules that steps need besides torch, Triton and numpy, and the packages that bring them. By ``libcst`` moves make
the best kernels known of ``fsa``.
"""
_PACKAGES = "packages"
"""Folder, below that of the evidence, of what was fetched."""


def main(arguments: Sequence[str] | None = None, command: Sequence[str] | None = None) -> int:
    """Gather, pack, and say what to do with the archive. Exit code 2 where nothing can be gathered."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.first_contact", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="time for all steps [10]")
    parser.add_argument("--out", type=Path, help="folder for what is found [first-contact-DATE]")
    parser.add_argument("--steps", help="only these, separated by commas")
    parser.add_argument("--list", action="store_true", help="list the steps")
    options = parser.parse_args(arguments)
    names = [step.name for step in STEPS] if options.steps is None else options.steps.split(",")
    if unknown := [name for name in names if name not in {step.name for step in STEPS}]:
        print(f"{parser.prog}: unknown step {unknown[0]!r}: see --list", file=sys.stderr)
        return 2
    if options.list:
        lines = (f"{each.name:10} {each.what}: {each.share_s:.0f} to {each.most_s:.0f} s" for each in STEPS)
        print("\n".join(lines))
        return 0
    until = time.monotonic() + 60 * options.minutes
    folder: Path = (options.out or Path(f"first-contact-{datetime.now(UTC):%Y%m%d-%H%M%S}")).absolute()
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        print(f"{parser.prog}: --out: {folder}: {error.strerror}: name a folder that is not there yet", file=sys.stderr)
        return 2
    if trouble := _fetched(folder):
        shutil.rmtree(folder, ignore_errors=True)  # so that the next call may name it
        print(f"{parser.prog}: {trouble}", file=sys.stderr)
        return 2
    chosen = [step for step in STEPS if step.name in names]
    told = command or (sys.executable, "-m", "bench.first_contact.steps")
    outcomes = perform(chosen, folder, told, until, lambda text: print(text, flush=True), CLOCKS)
    shutil.rmtree(folder / _PACKAGES, ignore_errors=True)  # it is no evidence
    done = sum(outcome.ending == "done" for outcome in outcomes)
    print(f"{done} of {len(outcomes)} steps are done; the evidence is in {pack(folder)}")
    print("Send it back as data: attach it to an issue; avo calibrate reads its files measured-*.json.")
    return 0


def _fetched(folder: Path) -> str:
    """Make what the steps import importable for them; return why it is not."""
    paths = [str(REPOSITORY)]
    if lacking := [package for module, package in _FETCHED.items() if find_spec(module) is None]:
        packages = folder / _PACKAGES
        patience = ("--retries", "1", "--timeout", "10")  # without a network it is part of the ten minutes
        pip = (sys.executable, "-m", "pip", "install", "--quiet", *patience)
        # numba needs llvmlite, and numpy, which stays as it is
        needs = [f"numpy=={version('numpy')}"] if "numba" in lacking else ["--no-deps"]
        install = [*pip, *needs, "--target", str(packages), *lacking]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"pip does not fetch what is missing: install {' and '.join(lacking)}"
        paths.append(str(packages))
    if os.environ.get("PYTHONPATH"):
        paths.append(os.environ["PYTHONPATH"])
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    return ""


if __name__ == "__main__":
    sys.exit(main())
