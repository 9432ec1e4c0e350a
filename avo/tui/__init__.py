"""The terminal UI: reads the lineage database, writes nothing."""
