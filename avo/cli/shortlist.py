"""``avo shortlist``: the kernels of a run that are worth five minutes of a card."""

import io
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Annotated

import typer

from avo.cli.common import DbOption, JsonOption, RunArgument, console, err, fail, print_json, read_store
from avo.evaluator.measurement import FILE


def shortlist(
    run: RunArgument,
    count: Annotated[int, typer.Option(min=2, max=100, metavar="N", help="How many kernels.")] = 12,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder to write; must be empty or not exist. Default: shortlist-RUN."),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="Copy it to this host by ssh, measure there, and ingest what was found."),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, metavar="N", help="How long to measure there.")] = 5.0,
    python: Annotated[
        str, typer.Option(metavar="COMMAND", help="Python with torch and triton there, e.g. 'srun --gpus 1 python3'.")
    ] = "python3",
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the kernels of a run that are worth timing to a folder, which needs torch and triton only.

    They are the kernel that the run began with, the best version, what ties with it, and the most different good ones.
    On a machine with an NVIDIA card, python measure.py in the folder verifies each, times them in turn, beside the
    libraries that are installed there, and writes measured.json for avo ingest.

    Example: avo shortlist mha-h100 --on my-gpu-machine
    """
    from avo.export.package import check_place, write_package
    from avo.export.shortlist import choose, render
    from avo.watch.scores import unit_for

    folder = out or Path(f"shortlist-{run}")
    check_place(folder)
    with read_store(db) as store:
        record = store.run(run)
        listed = choose(store, record, count)
    files = render(record, listed)
    write_package(files, folder)
    if as_json:
        kernels = [{"name": each.name, "attempt": each.attempt.id, "why": each.why} for each in listed]
        print_json({"folder": str(folder), "kernels": kernels})
    else:
        unit = unit_for(record)
        for each in listed:
            console.print(f"{each.name:>6}  {unit.said(each.score.geomean_tflops, 'predicted'):>20}  {each.why}")
    if on is None:
        err.print(f"{folder}: on a machine with a card, python {folder}/measure.py takes five minutes")
        return
    _measure_on(on, folder, minutes, python)
    from avo.cli.ingest import ingest

    ingest([folder / FILE], db=db)


def _measure_on(host: str, folder: Path, minutes: float, python: str) -> None:
    """Have ``folder`` measured on another machine, and fetch what it found, also after Ctrl-C or a failure there."""
    place = shlex.quote(f"avo-shortlist/{folder.resolve().name}")
    if code := _ssh(
        host, f"rm -rf {place} && mkdir -p {place} && tar -xzf - -C {place}", given=_packed(folder)
    ).returncode:
        fail(f"--on {host}: the folder cannot be copied there: ssh and tar ended with exit code {code}")
    try:
        code = _ssh(host, f"cd {place} && exec {python} measure.py --minutes {minutes:g}").returncode
    except KeyboardInterrupt:
        err.print("interrupted: fetching what was measured until now")
    found = _ssh(host, f"cat {place}/{FILE}", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if found.returncode:
        fail(f"--on {host}: nothing was measured: measure.py ended with exit code {code}")
    (folder / FILE).write_bytes(found.stdout)


def _packed(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(folder, ".")
    return buffer.getvalue()


def _ssh(host: str, command: str, given: bytes | None = None, **streams: int) -> "subprocess.CompletedProcess[bytes]":
    """Run a command on another machine, with a terminal there if there is one here: Ctrl-C then reaches it."""
    words = ["ssh", *(["-t"] if given is None and not streams and sys.stdin.isatty() else []), "--", host, command]
    try:
        return subprocess.run(words, input=given, check=False, **streams)  # type: ignore[call-overload,no-any-return]
    except OSError as error:
        fail(f"--on {host}: cannot start ssh: {error.strerror}")
