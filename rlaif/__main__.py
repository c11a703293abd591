"""`python -m rlaif` is `rlaif`."""

import sys

from rlaif.cli.main import main

sys.exit(main())
