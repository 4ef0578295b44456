"""The platform's runtime by itself, from `template/`, where it is plain Python: no server, no weights, milliseconds."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "template"))
