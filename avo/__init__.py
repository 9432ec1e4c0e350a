"""The application: runs, the command line, the terminal UI and export, built on every other room."""
