"""``python -m odeflow.cli``."""

import sys

from odeflow.cli.commands import main

sys.exit(main())
