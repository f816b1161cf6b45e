"""Makes the bench importable: it is no part of what is installed."""

from __future__ import annotations

import sys
from pathlib import Path

# At the end: whatever is installed, the wheel for one, stays in front of the checkout.
sys.path.append(str(Path(__file__).parents[2]))
