"""What a run's stored configuration keeps beside its settings: the keys. ``avo.transfer`` has one more."""

START = "start"
"""Where the seed came from, and its source."""
ISOLATION = "isolation"
"""What kept candidates apart, in words, one text for each way in which sittings of the run differed."""
TOOLS = "tools"
"""The releases of ours and of what compiles kernels, as installed where the run was driven; told in the same way."""
