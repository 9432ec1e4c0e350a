"""Autotuning without a GPU: runs a script, counts what its autotuned kernels launch, and predicts their times."""
