"""Watching a run: what it looks like now, what changed, and how that is said."""
