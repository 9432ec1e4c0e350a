"""What every exported package runs: copied into it as it is, beside the kernels and the table that it reads."""
