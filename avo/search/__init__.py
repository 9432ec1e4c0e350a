"""The search: runs, their steps, workers, populations, acceptance and replay."""
