"""``tests/detector/speech`` holds what several tests of the payload path share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "speech"))
