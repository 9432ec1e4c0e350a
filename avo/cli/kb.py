"""``avo kb``: search the knowledge base, and add documents to it."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from avo.cli.common import Group, JsonOption, console, err, fail, print_json
from avo.watch.tables import one_line, row, table
from avo.watch.wording import printable

kb = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None)


@kb.callback()
def _group() -> None:
    """Search what operators know: notes, the installed triton's API, and documents that you add.

    Example: avo kb search lazy rescaling
    """


@kb.command()
def search(
    query: Annotated[list[str], typer.Argument(metavar="QUERY...", help="Words, or a function as code names it.")],
    target: Annotated[
        str | None, typer.Option(metavar="NAME", help="Card: leave out passages about other architectures.")
    ] = None,
    problem: Annotated[
        str | None, typer.Option(metavar="NAME", help="Leave out passages about other problems.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="List at most N passages.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """List the passages that share words with QUERY, best first.

    Example: avo kb search lazy rescaling --target b200
    """
    if limit < 1:
        fail(f"--limit: {limit} should be 1 or more")
    from avo.evaluator.catalogue import get_problem, kind_of
    from avo.evaluator.targets import get_target
    from avo.knowledge_base.library import Library

    found = Library.load().search(
        " ".join(query),
        architecture=get_target(target).arch if target else None,
        problem=kind_of(get_problem(problem).name) if problem else None,
        limit=limit,
    )
    if as_json:
        print_json([asdict(note) for note in found])
        return
    if not found:
        err.print("No passage shares a word with the query.")
        return
    made = table("ID", "KIND", "TITLE", "SOURCE")
    for note in found:
        row(made, note.id, note.kind, note.title, note.source)
    console.print(made)
    err.print("Read one with: avo kb show ID")


@kb.command()
def show(
    note_id: Annotated[str, typer.Argument(metavar="ID", help="ID of a passage, as avo kb search lists it.")],
    as_json: JsonOption = False,
) -> None:
    """Print a whole passage.

    Example: avo kb show triton.language.dot
    """
    from avo.knowledge_base.library import Library

    note = Library.load().note(note_id)
    if as_json:
        print_json(asdict(note))
        return
    about = [*(f"sm_{architecture}" for architecture in note.architectures), *note.problems]
    console.print(one_line(note.title), style="bold", soft_wrap=True)
    if about:
        console.print(f"for {', '.join(about)}", soft_wrap=True)
    console.print(f"source: {one_line(note.source)}\n\n{printable(note.body)}", soft_wrap=True)
    for claim in note.claims:
        console.print(f"predicted: {claim}", soft_wrap=True)


@kb.command()
def add(path: Annotated[Path, typer.Argument(metavar="PATH", help="A text, or a folder of them.")]) -> None:
    """Copy a document, or the texts of a folder or checkout, to where all runs find them.

    Files that end in .md, .txt, .rst or .py are copied to $AVO_KB, by default ~/.local/share/avo/knowledge.

    Example: avo kb add ~/src/flash-attention
    """
    from avo.knowledge_base import documents

    folder = documents.documents_folder()
    made = documents.add(folder, path, datetime.now(UTC))
    count = len(documents.passages(folder, made))
    skipped = f"; {made.skipped} skipped: hidden, links, too large, or not text" if made.skipped else ""
    err.print(f"Added {made.name}: {made.files} texts, {count} passages{skipped}.")


@kb.command("list")
def list_added(as_json: JsonOption = False) -> None:
    """List the documents that were added.

    Example: avo kb list
    """
    from avo.knowledge_base import documents

    folder = documents.documents_folder()
    found = [
        {**asdict(each), "passages": len(documents.passages(folder, each))} for each in documents.collections(folder)
    ]
    if as_json:
        print_json(found)
        return
    made = table("NAME", ">TEXTS", ">PASSAGES", ">KB", "ADDED", "FROM")
    for each in found:
        row(made, each["name"], each["files"], each["passages"], each["bytes"] // 1024, each["added"], each["origin"])
    if found:
        console.print(made)
    else:
        err.print(f"Nothing was added to {folder}: avo kb add PATH")


@kb.command()
def remove(name: Annotated[str, typer.Argument(metavar="NAME", help="Name, as avo kb list shows it.")]) -> None:
    """Remove what was added under NAME. The original documents stay.

    Example: avo kb remove flash-attention
    """
    from avo.knowledge_base import documents

    documents.remove(documents.documents_folder(), name)
    err.print(f"Removed {name}.")
