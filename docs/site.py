"""The documentation as a site: ``python -m docs.site`` builds it in build/site, and fails where a link leads nowhere.

Pages keep their places in the project, so that their links are the same as in the repository. What they link to goes
along, and so do a page with the help of every command and one for each note of the knowledge base.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import typer

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"
CONFIGURATION = """
site_name: AVO
docs_dir: site-source
site_dir: site
use_directory_urls: false
theme:
  name: material
  font: false
  features: [navigation.sections, content.code.copy, search.highlight]
  palette:
  - {media: "(prefers-color-scheme: light)", scheme: default, toggle: {icon: material/weather-night, name: dark}}
  - {media: "(prefers-color-scheme: dark)", scheme: slate, toggle: {icon: material/weather-sunny, name: light}}
validation: {omitted_files: ignore, absolute_links: warn, unrecognized_links: warn, anchors: warn}
markdown_extensions:
- tables
- admonition
- pymdownx.superfences
- toc:
    permalink: true
    slugify: !!python/object/apply:pymdownx.slugs.slugify {kwds: {case: lower}}
"""
"""For MkDocs; the navigation is added. Anchors are made as GitHub makes them, and nothing is fetched from elsewhere."""
COMMANDS, NOTES = "docs/commands.md", "knowledge_base/notes"


def navigation() -> dict[str, list[str]]:
    """Return the pages of the site by heading: those of docs/index.md in its order, each once, and those made here."""
    found: dict[str, list[str]] = {}
    seen = ["README.md", "docs/index.md"]
    for section in (ROOT / "docs" / "index.md").read_text().split("\n## "):
        heading, _, text = section.partition("\n")
        listed = re.findall(r"^- \[[^]]+\]\(([^)]+\.md)\)", text, re.MULTILINE)
        pages = dict.fromkeys(str((ROOT / "docs" / page).resolve().relative_to(ROOT)) for page in listed)
        found[heading] = [page for page in pages if page not in seen]
        seen += pages
    first, *others = found
    found = {"Start": [*seen[:2], *found[first]], **{heading: found[heading] for heading in others}}
    notes = sorted(str(note.relative_to(ROOT)) for note in (ROOT / NOTES).glob("*.md"))
    return {**found, "Reference": [COMMANDS, "CHANGELOG.md"], "Knowledge base": notes}


def commands() -> str:
    """Return the page with the help of every command."""
    from typer.testing import CliRunner

    from avo.cli.main import app

    def helps(call: list[str], command: object) -> Iterator[str]:
        text = CliRunner().invoke(app, [*call, "--help"], terminal_width=86).stdout
        yield f"## {' '.join(('avo', *call))}\n\n```text\n{text.strip()}\n```\n"
        for name, inner in getattr(command, "commands", {}).items():
            yield from helps([*call, name], inner)

    return "# Commands\n\n" + "\n".join(helps([], typer.main.get_command(app)))


def note(text: str) -> str:
    """Return a note of the knowledge base as a page: its header becomes a title and a line."""
    _, header, body = text.split("---\n", 2)
    fields = dict(line.split(": ", 1) for line in header.strip().splitlines())
    rest = "; ".join(f"{name}: {value}" for name, value in fields.items() if name not in ("title", "claim"))
    return f"# {fields['title']}\n\n*{rest}*\n\n{body}"


def sources(pages: Mapping[str, list[str]]) -> dict[str, str | Path]:
    """Return what the site is made of, by its place: texts made here, and files, also those that others link to."""
    found: dict[str, str | Path] = {COMMANDS: commands()}
    waiting = [page for listed in pages.values() for page in listed if page != COMMANDS]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = ROOT / name
        found[name] = note(path.read_text()) if name.startswith(f"{NOTES}/") else path
        if name == "README.md":  # the badge is found from the repository's page alone
            found[name] = re.sub(r"<a .*badge.*</a>\n\n", "", path.read_text())
        if path.suffix == ".md":
            linked = (path.parent / link for link in re.findall(r"\]\(([^)\s#]+)[^)\s]*\)", path.read_text()))
            waiting += [str(file.resolve().relative_to(ROOT)) for file in linked if file.is_file()]
    return found


def build() -> Path:
    """Build the site and return its folder; leave with what is wrong where a link leads nowhere."""
    pages = navigation()
    shutil.rmtree(BUILD / "site-source", ignore_errors=True)
    for name, source in sources(pages).items():
        place = BUILD / "site-source" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(source.encode() if isinstance(source, str) else source.read_bytes())
    lines = (f"- {heading}:\n" + "".join(f"  - {page}\n" for page in listed) for heading, listed in pages.items())
    (configuration := BUILD / "mkdocs.yml").write_text(f"{CONFIGURATION}nav:\n{''.join(lines)}")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(configuration)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit("\n".join(line for line in done.stderr.splitlines() if not line.startswith("INFO")))
    return BUILD / "site"


if __name__ == "__main__":
    print(build() / "index.html")
