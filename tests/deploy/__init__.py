"""Deploys and rollbacks of a rendered service, with the real kubectl, against an API server of our own."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "template"), str(ROOT / "extensions/additions")]
