"""The lineage as a tree, in a list that can be searched and filtered."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.text import Text
from textual.widgets.option_list import Option

from avo.evaluator.problem import Baseline
from avo.evaluator.units import Unit
from avo.lineage_db.entries import Intervention
from avo.lineage_db.records import Version
from avo.tui.keys import Options
from avo.tui.reader import Picture
from avo.watch.scores import BaselineComparison, gain, geomean, lines, over_parent
from avo.watch.tree import Row, layout
from avo.watch.view import RunView
from avo.watch.wording import CONFIRMATION_STYLE, briefly_measured, first_line, in_a_list


class LineageList(Options):
    """The tree of versions; the details of the highlighted one are shown. Published figures are lines across it."""

    def __init__(self, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._versions: tuple[Version, ...] = ()
        self._filter = ""

    def show(
        self,
        picture: Picture,
        baselines: Sequence[Baseline],
        words: str = "",
    ) -> None:
        """Show the versions that match ``words``; the highlighted one stays where it is."""
        self._versions = picture.versions
        by_number = picture.by_number
        marks = marked(picture.versions, picture.interventions)
        rows = layout(kept(picture.versions, by_number, words))
        best = picture.view.best.number if picture.view.best else None
        prompts = [(_prompt(row, by_number, marks, picture.view), row.version.number) for row in rows]
        options = [Option(prompt, id=str(number)) for prompt, number in prompts]
        seed = picture.view.seed
        score = seed.attempt.evaluation.score if seed else None
        published = lines(score, baselines, (row.version for row in rows)) if score else []
        for number, (place, found) in reversed(list(enumerate(published))):
            options.insert(place, Option(_line(found, picture.view.unit), id=f"published {number}", disabled=True))
        for waiting in marks.get(-1, ()):
            options.append(Option(_waiting(waiting), id=f"intervention {waiting.id}", disabled=True))
        known = [option.id for option in self.options]
        if known == [option.id for option in options[: len(known)]]:
            for index, option in enumerate(options[: len(known)]):
                if option.prompt != self.options[index].prompt:
                    self.replace_option_prompt_at_index(index, option.prompt)
            self.add_options(options[len(known) :])
        else:
            selected, row, top = self.selected, self.highlighted or 0, self.scroll_offset.y
            self.set_options(options)
            if selected is not None and any(row.version.number == selected for row in rows):
                self.select(selected)
            self.scroll_to(y=top + (self.highlighted or 0) - row, animate=False)
        if self.highlighted is None and rows:
            self.select(best if any(row.version.number == best for row in rows) else rows[-1].version.number)  # type: ignore[arg-type]

    @property
    def selected(self) -> int | None:
        """Number of the highlighted version."""
        option = self.highlighted_option
        return int(option.id) if option and option.id else None

    def select(self, number: int) -> None:
        """Highlight a version, if it is in the list."""
        if any(option.id == str(number) for option in self.options):
            self.highlighted = self.get_option_index(str(number))

    def find(self, words: str, *, forward: bool = True, stay: bool = False) -> bool:
        """Highlight the next version in the list that matches ``words``; return whether there is one.

        With ``stay`` the highlighted version is looked at first.
        """
        numbers = [int(option.id) for option in self.options if option.id and not option.disabled]
        if not numbers or not words.strip():
            return True
        by_number = {version.number: version for version in self._versions}
        start = numbers.index(self.selected) if self.selected in numbers else 0
        turned = numbers[start:] + numbers[:start] if forward else numbers[start::-1] + numbers[:start:-1]
        for number in turned if stay else [*turned[1:], turned[0]]:
            if matches(by_number[number], by_number, words):
                self.select(number)
                return True
        return False


def matches(version: Version, versions: Mapping[int, Version], words: str) -> bool:
    """Return whether a version's change, hypothesis or niche contains all ``words``; case does not matter.

    ``v12`` matches version 12, ``>0.5`` a version that gained more than 0.5 percent.
    """
    attempt = version.attempt
    said = "\n".join((version.change, attempt.change, attempt.hypothesis, version.seen, version.niche)).lower()
    return all(_matches(version, versions, said, word) for word in words.lower().split())


def _matches(version: Version, versions: Mapping[int, Version], said: str, word: str) -> bool:
    if word[0] == "v" and word[1:].isdecimal():
        return version.number == int(word[1:])
    if word[0] == ">":
        try:
            return (gain(version, versions) or 0.0) * 100 > float(word[1:])
        except ValueError:
            return True  # the number is not complete yet
    return word in said


def kept(versions: Sequence[Version], by_number: Mapping[int, Version], words: str) -> list[Version]:
    """Return the versions that match ``words``, each as a child of its nearest ancestor that matches."""
    if not words.strip():
        return list(versions)
    stands: dict[int, int | None] = {}
    kept = []
    for version in versions:
        above = stands.get(version.parents[0]) if version.parents else None
        found = matches(version, by_number, words)
        stands[version.number] = version.number if found else above
        if found:
            kept.append(replace(version, parents=() if above is None else (above,)))
    return kept


def marked(versions: Sequence[Version], interventions: Sequence[Intervention]) -> dict[int, list[Intervention]]:
    """Return the interventions by the number of the first version accepted after them; -1 if there is none yet."""
    marks: dict[int, list[Intervention]] = {}
    for intervention in interventions:
        later = (version.number for version in versions if version.accepted >= intervention.made)
        marks.setdefault(next(later, -1), []).append(intervention)
    return marks


def _waiting(intervention: Intervention) -> Text:
    words = f"◆{first_line(intervention.level)}: {first_line(intervention.reason)}, no version since"
    return Text(words, "bold magenta", no_wrap=True, overflow="ellipsis")


def _line(published: BaselineComparison, unit: Unit) -> Text:
    line = f"{unit.cell(published.published):>6} ┄┄┄┄┄┄ {published.name}, published"
    return Text(line, "dim", no_wrap=True, overflow="ellipsis")


def _prompt(
    row: Row,
    versions: Mapping[int, Version],
    marks: Mapping[int, Sequence[Intervention]],
    view: RunView,
) -> Text:
    version = versions[row.version.number]
    is_best = view.best is not None and version.number == view.best.number
    text = Text.assemble(
        (f"{view.unit.cell(geomean(version)):>6} ", "bold" if is_best else ""),
        (f"{over_parent(version, versions):>12} ", "green"),
        (row.lines, "dim"),
        ("★ " if is_best else "● ", "bold yellow" if is_best else "dim"),
        (f"v{version.number} ", "bold"),
        no_wrap=True,
        overflow="ellipsis",
    )
    if view.measured:
        told = view.measured.get(version.attempt.id)
        text.append(
            f"{briefly_measured(told, view.unit)} ", CONFIRMATION_STYLE[told.finding.confirmation] if told else "dim"
        )
    if version.niche:
        text.append(f"@{first_line(version.niche)} ", "cyan")
    for intervention in marks.get(version.number, ()):
        text.append(f"◆{first_line(intervention.level)} ", "bold magenta")
    return text.append(first_line(in_a_list(version.change)) or "seed")
