"""`python -m onca` is `onca`."""

import sys

from onca.cli import main

sys.exit(main())
