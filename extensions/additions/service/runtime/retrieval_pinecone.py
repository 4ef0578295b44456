"""Retrieval with Pinecone: an index is a namespace, and a record in the namespace `aliases` names the one served.

Pinecone has no aliases. The record is read at start and again every POINTER_S seconds, so replicas follow a switch.
Another record there, by the name of an index, tells until when that index was served.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pinecone import AsyncIndex
from pinecone.errors import ApiError, PineconeError

from service.runtime.retrieval import (
    CONFIG,
    Condition,
    Document,
    Found,
    Hit,
    NotIndexed,
    Range,
    RetrievalSettings,
    SearchRefused,
    check_index,
    load_retrieval,
    stable_id,
)
from service.runtime.settings import SettingsError

DatabaseError = (PineconeError, OSError)
REFUSED = 400
POINTERS = "aliases"
POINTER_S = 10.0
# No replica reads an index for longer after a switch.
READ_ON = 3
JOB_TIMEOUT_S = 60.0
# Ids stand in the URL of a fetch.
FETCH = 100
# A request may have 2 MB: vectors of 1024 numbers and a page of text each.
UPSERT = 100


def load_retrieval_settings(path: Path = CONFIG) -> RetrievalSettings:
    """See `load_settings`."""
    return load_retrieval(RetrievalSettings, path)


def client_of(settings: RetrievalSettings, timeout_s: float) -> AsyncIndex:
    """The index by its own address: finding it by name would be one more service to wait for."""
    if not settings.key:
        raise SettingsError("there is no key for Pinecone: set VECTOR_DB_API_KEY")
    return AsyncIndex(host=settings.url, api_key=settings.key, timeout=timeout_s, ssl_ca_certs=settings.ca)


def filter_of(where: Mapping[str, Condition]) -> dict[str, Any] | None:
    """All conditions at once, in Pinecone's words."""
    found: dict[str, Any] = {}
    for field, wanted in where.items():
        if isinstance(wanted, Range):
            found[field] = {f"${bound}": value for bound, value in wanted.bounds.items()}
        else:
            found[field] = {"$in": wanted} if isinstance(wanted, list) else {"$eq": wanted}
    return found or None


async def pointed_at(client: AsyncIndex, alias: str) -> str:
    """The namespace that is served under the alias. Raises NotIndexed."""
    record = (await client.fetch(ids=[alias], namespace=POINTERS)).vectors.get(alias)
    if record is None or record.metadata is None:
        raise NotIndexed(alias)
    return str(record.metadata["namespace"])


async def found_in(client: AsyncIndex) -> Found:
    stats = await client.describe_index_stats()
    return Found(stats.dimension, stats.metric or "cosine")


class PineconeRetriever:
    """See `retrieval.Retriever`. Each vector is a request of its own, all at once."""

    def __init__(self, settings: RetrievalSettings) -> None:
        self._alias = settings.alias
        self._client = client_of(settings, settings.deadline_ms / 1e3)
        self._namespace = ""
        self._read_s = 0.0
        self._reading: asyncio.Task[None] | None = None

    async def open(self, dimension: int) -> None:
        check_index(self._alias, await found_in(self._client), dimension)
        await self._follow()

    async def _follow(self) -> None:
        self._namespace = await pointed_at(self._client, self._alias)
        self._read_s = time.monotonic()

    async def search(
        self, vectors: Sequence[Sequence[float]], limit: int, where: Mapping[str, Condition]
    ) -> list[list[Hit]]:
        age_s = time.monotonic() - self._read_s
        if not self._namespace or age_s > 2 * POINTER_S:  # nobody has asked for long: what was served then may be gone
            await self._follow()
        elif age_s > POINTER_S and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._follow())
            self._reading.add_done_callback(lambda done: done.cancelled() or done.exception())  # tried again
        condition = filter_of(where)
        return await asyncio.gather(*(self._nearest(vector, limit, condition) for vector in vectors))

    async def _nearest(self, vector: Sequence[float], limit: int, condition: dict[str, Any] | None) -> list[Hit]:
        try:
            answer = await self._client.query(
                vector=vector, top_k=limit, namespace=self._namespace, filter=condition, include_metadata=True
            )
        except ApiError as error:
            raise SearchRefused(str(error)) if error.status_code == REFUSED else error from None
        return [
            Hit.model_construct(
                id=metadata["_id"],
                text=metadata["_text"],
                score=match.score,
                metadata={field: value for field, value in metadata.items() if not field.startswith("_")},
            )
            for match in answer.matches
            if (metadata := match.metadata) is not None
        ]

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        await self._client.close()


class PineconeIndexWriter:
    """See `retrieval.IndexWriter`. The index itself is there already; its namespaces come into being by use."""

    def __init__(self, settings: RetrievalSettings) -> None:
        self._alias = settings.alias
        self._client = client_of(settings, JOB_TIMEOUT_S)
        self._name = ""
        self._dimension = 0
        self._resumed = False

    async def begin(self, build: str, dimension: int, fields: Mapping[str, type]) -> None:
        check_index(build, await found_in(self._client), dimension)
        self._name, self._dimension = build, dimension
        if await self._fetched([build], POINTERS):
            await self._client.delete(ids=[build], namespace=POINTERS)
        self._resumed = await self.count() > 0

    async def present(self, ids: Sequence[str]) -> set[str]:
        if not self._resumed:
            return set()
        records = {stable_id(each): each for each in ids}
        return {records[each] for each in await self._fetched(list(records), self._name)}

    async def _fetched(self, ids: Sequence[str], namespace: str) -> dict[str, Any]:
        """Those records that are there, by id."""
        pages = [
            self._client.fetch(ids=list(ids[start : start + FETCH]), namespace=namespace)
            for start in range(0, len(ids), FETCH)
        ]
        return {each: record for page in await asyncio.gather(*pages) for each, record in page.vectors.items()}

    async def upsert(self, documents: Sequence[Document], vectors: Sequence[Sequence[float]]) -> None:
        records = [
            {
                "id": stable_id(document.id),
                "values": list(vector),
                "metadata": dict(document.metadata, _id=document.id, _text=document.text),
            }
            for document, vector in zip(documents, vectors, strict=True)
        ]
        for start in range(0, len(records), UPSERT):
            await self._client.upsert(vectors=records[start : start + UPSERT], namespace=self._name)

    async def count(self) -> int:
        found = (await self._client.describe_index_stats()).namespaces.get(self._name)
        return found.vector_count if found else 0

    async def serve(self) -> None:
        vector = [1.0, *[0.0] * (self._dimension - 1)]  # Pinecone refuses one of zeros
        records = [{"id": self._alias, "values": vector, "metadata": {"namespace": self._name}}]
        try:
            old = await pointed_at(self._client, self._alias)
        except NotIndexed:  # the first
            old = self._name
        if old != self._name:
            records.append({"id": old, "values": vector, "metadata": {"served_until_s": time.time()}})
        await self._client.upsert(vectors=records, namespace=POINTERS)

    async def unserved(self) -> dict[str, bool]:
        return {name: until_s is not None for name, until_s in (await self._unserved()).items()}

    async def _unserved(self) -> dict[str, float | None]:
        """See `unserved`; until when they were served, in Unix time."""
        served = await pointed_at(self._client, self._alias)
        held = (await self._client.describe_index_stats()).namespaces
        mine = [name for name, found in held.items() if name.startswith(f"{self._alias}-") and found.vector_count]
        names = sorted({*mine} - {served, self._name})
        marks = await self._fetched(names, POINTERS)
        return {name: marks[name].metadata["served_until_s"] if name in marks else None for name in names}

    async def drop(self, name: str) -> bool:
        while (until_s := (await self._unserved()).get(name)) is not None:
            left_s = until_s + READ_ON * POINTER_S - time.time()
            if left_s <= 0:
                await self._client.delete(delete_all=True, namespace=name)
                await self._client.delete(ids=[name], namespace=POINTERS)
                return True
            await asyncio.sleep(left_s)
        return False

    async def close(self) -> None:
        await self._client.close()
