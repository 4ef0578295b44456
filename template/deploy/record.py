"""What was deployed before, kept in the cluster: the ConfigMap `<service>-deployed` beside what it tells of.

A rollback needs the very objects that last worked, and whoever is called at night may have neither the clone nor the
commit from which they were deployed: git knows what was written, the cluster what ran. So each deploy that became
ready leaves its manifest here, compressed, the newest `KEEP` of them and 700 KiB at most (an object of Kubernetes
holds 1 MiB). Objects of kind Secret stay out: a rollback leaves them as they are.

`running` names the manifest that the cluster has. It is emptied before anything is applied and set when all is ready,
so a deploy that failed, or that nobody saw the end of, is never gone back to.
"""

import base64
import gzip
import json
import re
from dataclasses import asdict, dataclass

from deploy.manifests import Object, Refused, objects_of

KEEP = 5
LARGEST_BYTES = 700 * 1024


@dataclass
class Deployed:
    """A deploy that became ready. commit: of git, `-dirty` with changes that it does not have; empty if unknown."""

    number: int
    at: str
    commit: str

    def __str__(self) -> str:
        return f"deploy {self.number} of {self.at}{f' (commit {self.commit})' if self.commit else ''}"


class Record:
    """The deploys of a service in one namespace, oldest first."""

    def __init__(self, content: Object | None, name: str) -> None:
        """content: the ConfigMap, if there is one."""
        self.name = f"{name}-deployed"
        self._content = content or {"metadata": {"name": self.name, "labels": {"app.kubernetes.io/name": name}}}
        data = self._content.get("data") or {}
        self.deploys = [Deployed(**each) for each in json.loads(data.get("deploys", "[]"))]
        self.running = int(data["running"]) if data.get("running") else None
        self._manifests: dict[str, str] = self._content.get("binaryData") or {}

    def content(self) -> Object:
        """The ConfigMap as it should be."""
        return {
            **self._content,
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "data": {
                "deploys": json.dumps([asdict(each) for each in self.deploys]),
                "running": str(self.running or ""),
            },
            "binaryData": {str(each.number): self._manifests[str(each.number)] for each in self.deploys},
        }

    def take(self, written: Object) -> None:
        """The ConfigMap is now this one: the next write replaces it, and not one that somebody wrote meanwhile."""
        self._content = written

    def newest(self) -> list[Object]:
        """The objects of the last deploy that became ready."""
        return objects_of(self.manifest(self.deploys[-1])) if self.deploys else []

    def manifest(self, deployed: Deployed) -> str:
        return gzip.decompress(base64.b64decode(self._manifests[str(deployed.number)])).decode()

    def add(self, manifest: str, at: str, commit: str) -> Deployed:
        """This became ready. What was deployed before is forgotten where there is too much of it."""
        kept = [part for part in re.split(r"^---$\n?", manifest, flags=re.MULTILINE) if not holds_secret(part)]
        packed = base64.b64encode(gzip.compress("---\n".join(kept).encode(), mtime=0)).decode()
        same = [each for each in self.deploys[-1:] if self._manifests[str(each.number)] == packed]
        deployed = same[0] if same else Deployed(max((each.number for each in self.deploys), default=0) + 1, at, commit)
        if not same:
            self.deploys.append(deployed)
            self._manifests[str(deployed.number)] = packed
        while len(self.deploys) > KEEP or (len(self.deploys) > 1 and self._size_bytes() > LARGEST_BYTES):
            self.deploys.pop(0)
        self.running = deployed.number
        return deployed

    def _size_bytes(self) -> int:
        return sum(len(self._manifests[str(each.number)]) for each in self.deploys)

    def back(self) -> Deployed:
        """The deploy to go back to. Later ones are forgotten, so the next rollback goes further. Raises Refused."""
        older = [each for each in self.deploys if each.number != self.running]
        if not older:
            runs = f"it runs {self.deploys[-1]}, the only one that" if self.running else "none"
            raise Refused(f"there is no deploy to go back to: {runs} became ready, as configmap/{self.name} tells")
        self.deploys, self.running = older, None
        return older[-1]


def holds_secret(document: str) -> bool:
    return any(each["kind"] == "Secret" for each in objects_of(document))
