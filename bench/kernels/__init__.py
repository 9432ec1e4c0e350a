"""Kernels that notes compare with others."""
