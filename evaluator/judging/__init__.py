"""Judges candidates: executes their launch plans, compares the results with a reference, and scores their speed."""
