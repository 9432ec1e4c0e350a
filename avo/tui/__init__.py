"""The terminal UI: reads the lineage database and writes nothing."""
