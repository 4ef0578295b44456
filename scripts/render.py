"""Render one variant of tests/variants.py into work/NAME, as the checkout stands: `python -m scripts.render NAME`."""

import shutil
import sys
import tempfile
from pathlib import Path

from tests.rendering import copy_template, refused, render
from tests.variants import NAMED, ROOT, candidates


def main() -> None:
    if len(sys.argv) != 2:
        print("Choose a variant, as in `make render VARIANT=default`. Named ones:\n  " + "\n  ".join(NAMED))
        print(f"and {len(candidates()) - len(NAMED)} made of single choices and pairs: tests/variants.py")
        return
    name = sys.argv[1]
    variants = candidates()
    if name not in variants:
        sys.exit(f"There is no variant {name!r}: `make render` lists the names.")
    target = ROOT / "work" / name
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as template:
        try:
            render(copy_template(Path(template)), target, variants[name])
        except ValueError as error:
            sys.exit(f"The questionnaire refuses {name}: {error}" if refused(error) else f"Copier stopped: {error}")
    print(f"rendered {variants[name] or 'all defaults'} into work/{name}")


if __name__ == "__main__":
    main()
