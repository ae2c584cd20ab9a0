"""`python -m cinefeed` is the command `cinefeed`."""

import sys

from cinefeed.cli import main

sys.exit(main())
