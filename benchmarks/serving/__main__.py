"""`python -m benchmarks.serving`: see `run.py`."""

from benchmarks.serving.run import main

main()
