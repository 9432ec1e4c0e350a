"""What every exported package runs: copied into it unchanged, next to the kernels and the table that it reads."""
