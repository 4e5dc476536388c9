"""`python -m pgtasks` does what `pgtasks` does."""

import sys

from pgtasks.cli import main

if __name__ == "__main__":
    sys.exit(main())
