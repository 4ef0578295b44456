"""Documents by meaning: what a vector database must offer to search and to index, and what both agree on.

An index is built under a name of its own and served under an alias, which names the embedding model and its revision:
vectors of two models never mix, old and new replicas of a rolling update each search their own, and an index that is
rebuilt is switched to at once.
"""

import hashlib
import math
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
)
from pydantic import model_validator as validator

from service.retrieval.embedder import VERSION
from service.runtime.settings import Name, SettingsError, Strict, load_settings

CONFIG = Path(__file__).parents[2] / "config/retrieval.yaml"
ENVIRONMENT = {key: f"VECTOR_DB_{key.upper()}" for key in ("url", "api_key", "ca")}

# Databases take UUIDs as ids, and not whatever a document is called.
IDS = uuid.UUID("6f2c8a1e-6a0b-4a52-9d0e-0b7e3c1f5a77")
MAX_LIMIT = 100
COMMIT = re.compile(r"[0-9a-f]{40}")
# Letters of a revision in a name.
LABEL = 12
Number = StrictInt | StrictFloat
FieldName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]


def comparable(value: Any) -> Any:
    """`value`; ValueError if it is or holds what no database compares: null, NaN, infinity, more than 64 bits."""
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    for one in held:
        if one is None:
            raise ValueError("null says nothing: give a value, or leave it out")
        if isinstance(one, float) and not math.isfinite(one):
            raise ValueError(f"{one} is no number to compare with: leave it out, or give a finite one")
        if isinstance(one, int) and not -(2**63) <= one < 2**63:
            raise ValueError("the number has more than 64 bits: give a smaller one, or write it as text")
    return value


# What databases can filter by.
Value = Annotated[
    StrictBool | Number | Annotated[StrictStr, Field(max_length=1000)] | list[StrictStr], BeforeValidator(comparable)
]


class RetrievalSettings(Strict):
    """`config/retrieval.yaml`; VECTOR_DB_URL, VECTOR_DB_API_KEY and VECTOR_DB_CA in the environment win over it.

    url: of the database, or of the index. ca: file with the authority of its certificate, if that is your own.
    namespace: first part of every index's name, so that services can share a database.
    embedder, revision: the model that makes the vectors. deadline_ms: what one search may take, and what a prediction
    waits for documents, embedding included.
    """

    url: str = Field(pattern=r"^https?://")
    api_key: SecretStr | None = None
    ca: str | None = None
    namespace: str = Field(min_length=1)
    embedder: Name
    revision: str = Field(min_length=1)
    deadline_ms: float = Field(gt=0)

    @property
    def alias(self) -> str:
        """The name under which this service's embedding model finds its index."""
        return f"{self.namespace}-{self.embedder}-{self.label}-v{VERSION}"

    @property
    def label(self) -> str:
        """The revision in few letters; two labels that begin alike stay two."""
        if len(self.revision) <= LABEL or COMMIT.fullmatch(self.revision):
            return self.revision[:LABEL]
        return f"{self.revision[:LABEL]}-{hashlib.sha256(self.revision.encode()).hexdigest()[:8]}"

    @property
    def key(self) -> str | None:
        """The secret in clear, for the client alone."""
        return self.api_key.get_secret_value() if self.api_key else None


Settings = TypeVar("Settings", bound=RetrievalSettings)


def load_retrieval(kind: type[Settings], path: Path) -> Settings:
    """The settings of a database; see `load_settings`."""
    settings = load_settings(kind, ENVIRONMENT, path)
    check_key(settings.key)
    return settings


def check_key(key: str | None) -> None:
    """Raises SettingsError for a key that no header can carry: clients would print it whole in what they raise."""
    if key and not (key.isascii() and key.isprintable() and key == key.strip()):
        raise SettingsError(
            f"the key of the vector database ({ENVIRONMENT['api_key']}) begins or ends with a space or a line break, "
            "or holds a character that cannot be sent: write it anew, with `printf %s` where it was `echo`"
        )


class Range(BaseModel):
    """Bounds of a number; at least one."""

    model_config = ConfigDict(extra="forbid")
    gt: Number | None = None
    gte: Number | None = None
    lt: Number | None = None
    lte: Number | None = None

    @validator(mode="after")
    def _has_a_bound(self) -> "Range":
        if not self.model_fields_set:
            raise ValueError("a range needs gt, gte, lt or lte")
        return self

    @property
    def bounds(self) -> dict[str, float]:
        return self.model_dump(exclude_none=True)


Condition = StrictBool | Number | StrictStr | Annotated[list[Number | StrictStr], Field(min_length=1)] | Range
# Field of the metadata -> its value, one of its values, or its bounds. All must hold.
Where = Annotated[dict[FieldName, Annotated[Condition, BeforeValidator(comparable)]], Field(max_length=20)]


class Document(BaseModel):
    """What is indexed. metadata: what a search can filter by."""

    model_config = ConfigDict(extra="forbid")
    id: str = Field(min_length=1, max_length=200)
    text: str = Field(min_length=1)
    metadata: dict[FieldName, Value] = {}


class Hit(BaseModel):
    """A document that was found. score: cosine similarity with the query, 1 is the same meaning."""

    id: str
    text: str
    score: float
    metadata: dict[str, Any]


def stable_id(document_id: str) -> str:
    """The id in a database: the same for the same document, always."""
    return str(uuid.uuid5(IDS, document_id))


class NotIndexed(LookupError):
    """No index is served under the alias yet."""

    def __str__(self) -> str:
        return f"there is no index {self.args[0]}: run `python -m jobs.index_documents FILE`"


class SearchRefused(ValueError):
    """The database is well and will not answer this search; the message is the database's own."""


class IndexMismatch(SettingsError):
    """The index that the alias names was not made for the embedding model of this service."""


class Found(NamedTuple):
    """What a database says of an index. dimension: numbers in a vector; None where any would do so far."""

    dimension: int | None
    distance: str


def check_index(alias: str, found: Found, dimension: int) -> None:
    """Raises IndexMismatch unless vectors of `dimension` numbers can be searched by cosine similarity."""
    if found.dimension not in (None, dimension):
        raise IndexMismatch(
            f"the index {alias} holds vectors of {found.dimension} numbers and the embedding model makes {dimension}: "
            "index anew with this model, or serve the one that made it"
        )
    if found.distance != "cosine":
        raise IndexMismatch(
            f"the index {alias} measures {found.distance} and not cosine: index anew, a distance cannot be changed"
        )


class Retriever(Protocol):
    """Searches the index that the alias names. Use from one event loop. Bounds are the caller's: see `search.py`."""

    async def open(self, dimension: int) -> None:
        """Connect and check the index. Raises NotIndexed, IndexMismatch, or what the client raises."""

    async def search(
        self, vectors: Sequence[Sequence[float]], limit: int, where: Mapping[str, Condition]
    ) -> list[list[Hit]]:
        """The `limit` nearest documents of each vector, nearest first.

        Raises NotIndexed, SearchRefused, or what the client raises.
        """

    async def close(self) -> None: ...


class IndexWriter(Protocol):
    """Builds an index beside the one that is served, and switches the alias to it. All of it can be repeated."""

    async def begin(self, build: str, dimension: int, fields: Mapping[str, type]) -> None:
        """Go on with the index of this name, or make it; from now on nobody may drop it.

        Raises IndexMismatch when it is there with other vectors.

        fields: of the metadata, by type (bool, int, float or str), to filter by.
        """

    async def present(self, ids: Sequence[str]) -> set[str]:
        """Those of `ids` that the index holds already."""

    async def upsert(self, documents: Sequence[Document], vectors: Sequence[Sequence[float]]) -> None:
        """Write documents, each replacing the one of the same id."""

    async def count(self) -> int:
        """Documents in the index; some databases count what was just written only after a while."""

    async def serve(self) -> None:
        """Switch the alias to this index, and note of the one that it named that it was served once."""

    async def unserved(self) -> dict[str, bool]:
        """The indexes of this alias other than the one that it names and this one -> whether they were served once.

        One that never was may be what another job is building.
        """

    async def drop(self, name: str) -> bool:
        """Delete an index that was served once, when no search reads it any more; False if a job has taken it up."""

    async def close(self) -> None: ...
