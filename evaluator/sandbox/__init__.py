"""Runs jobs that see candidates in confined processes."""
