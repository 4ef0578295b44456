"""Deploys and rollbacks of a rendered service, with the real kubectl, against an API server of our own."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "template"))
