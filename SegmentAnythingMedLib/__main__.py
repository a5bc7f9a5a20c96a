"""``python -m SegmentAnythingMedLib`` is the command line."""

import sys

from SegmentAnythingMedLib.cli import main

if __name__ == "__main__":
    sys.exit(main())
