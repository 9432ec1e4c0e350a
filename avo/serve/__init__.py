"""The served page: the runs of a database in a browser, live and read-only, for those who have its token."""
