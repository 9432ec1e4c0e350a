"""Reports: a run as one file to read, print and pass on."""
