"""Public Triton packages, unmodified, on the CPU: their kernels against torch, sanitised.

python -m bench.packages [--json FILE] [SUITE ...]
"""
