"""Tables of Markdown that a script prints, and puts into a page between markers that name the script and the table."""

import argparse
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

Table = Iterator[str]


def row(*cells: object) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def head(*cells: object) -> Table:
    """Yield the first two rows of a table."""
    yield row(*cells)
    yield "|" + "---|" * len(cells)


def put(document: str, name: str, table: str) -> str:
    """Return ``document`` with ``table`` between the markers called ``name``; raise ``ValueError`` without them."""
    start, stop = f"<!-- {name} -->", "<!-- end -->"
    found = re.compile(f"{re.escape(start)}\n.*?{re.escape(stop)}", re.DOTALL)
    if len(found.findall(document)) != 1:
        raise ValueError(f"no place for {name}: the document needs {start} and {stop}, once")
    return found.sub(lambda _: f"{start}\n{table}\n{stop}", document)


def main(script: str, description: str | None, tables: Mapping[str, Callable[[], Table]], document: Path) -> None:
    """Print the tables that the command line asks for, or all; write them into the document on request.

    Markers have the name of the ``script``, a colon and the table's name. As in a judge, torch has one thread here and
    in processes begun from here: beside other work its threads wait for each other.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="*", help=", ".join(tables))
    parser.add_argument("--write", action="store_true", help=f"put the tables into {document.name}")
    asked = parser.parse_args()
    if unknown := set(asked.table) - set(tables):
        parser.error(f"no table is called {min(unknown)}: there are {', '.join(tables)}")
    for name in asked.table or tables:
        table = "\n".join(tables[name]())
        print(table, end="\n\n", flush=True)
        if asked.write:
            document.write_text(put(document.read_text(), f"{script}: {name}", table))
