"""``python -m odeflow``: the command line, where the command ``odeflow`` is not on the path."""

import sys

from odeflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
