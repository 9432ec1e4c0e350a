"""Export: an accepted version as an installable package, with its provenance and a test."""
