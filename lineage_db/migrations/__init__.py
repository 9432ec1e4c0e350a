"""Schema migrations of the lineage database, applied when a database is opened."""
