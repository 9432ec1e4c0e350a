"""Scripts that call autotuned kernels of public packages, for ``avo tune``, and the table of what it finds."""
