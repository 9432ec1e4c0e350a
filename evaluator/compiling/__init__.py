"""Compiles launch plans with Triton, in child processes."""
