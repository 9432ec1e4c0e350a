"""Judges attention kernels: compiles, executes and times launch plans that untrusted candidates emit.

Importing this package, or any noun in it, imports neither torch nor triton.
"""
