"""The platform's runtime by itself, from `template/`, where it is plain Python: no server, no weights, milliseconds."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "template"), str(ROOT / "extensions/additions")]
