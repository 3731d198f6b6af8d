"""``python -m lowland`` is the command ``lowland``."""

import sys

from lowland.cli import main
from lowland.side_by_side import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    sys.exit(main())
