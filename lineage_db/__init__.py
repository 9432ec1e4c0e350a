"""The lineage database: runs, steps, attempts and versions, kept whole in SQLite or PostgreSQL."""
