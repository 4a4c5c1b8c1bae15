"""`python -m bc_core comparison.json`: the command `bc-compare`, where its script is not on the path."""

import sys

from bc_core._cli import main

if __name__ == "__main__":
    sys.exit(main())
