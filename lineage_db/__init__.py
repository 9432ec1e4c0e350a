"""The lineage database: runs, steps, attempts and versions, kept whole in SQLite or PostgreSQL."""

if __name__ != "avo.lineage_db":  # a checkout on the path has this folder under both names
    raise ModuleNotFoundError("write avo.lineage_db, or run outside of AVO's checkout", name=__name__)
