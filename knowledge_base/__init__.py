"""The knowledge base K: notes on architectures, Triton and attention kernels."""
