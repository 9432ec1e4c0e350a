"""``avo migrate``: bring a database that an older AVO wrote up to date."""

from avo.cli.common import DbOption, console, database_url, open_store


def migrate(db: DbOption = None) -> None:
    """Bring a database that an older AVO wrote up to date.

    Commands that only read a database never change it, and say so when it needs this. End its runs first: an older AVO
    cannot go on with it.

    Example: avo migrate --db .avo/lineage.db
    """
    with open_store(db):
        console.print(f"{database_url(db)} is up to date", soft_wrap=True)
