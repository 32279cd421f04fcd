"""`python -m torchxnn.cli`."""

import sys

from torchxnn.cli.main import main

sys.exit(main())
