"""``python -m avo`` is the command ``avo``."""

from avo.cli.main import main

if __name__ == "__main__":
    main()
