"""Retrieval with Qdrant: an index is a collection, and an alias of Qdrant names the one that is served."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from service.runtime.retrieval import (
    CONFIG,
    ENVIRONMENT,
    Condition,
    Document,
    Found,
    Hit,
    NotIndexed,
    Range,
    RetrievalSettings,
    SearchRefused,
    check_index,
    stable_id,
)
from service.runtime.settings import load_settings

DatabaseError = (ApiException, OSError)
NOT_FOUND = 404
REFUSED = (400, 422)
# A job may wait longer than a search; the client counts in whole seconds.
JOB_TIMEOUT_S = 60
KINDS = {
    bool: models.PayloadSchemaType.BOOL,
    int: models.PayloadSchemaType.INTEGER,
    float: models.PayloadSchemaType.FLOAT,
    str: models.PayloadSchemaType.KEYWORD,
}


class QdrantSettings(RetrievalSettings):
    """See `RetrievalSettings`. replication_factor: nodes that hold each vector of a new index; null: the cluster's."""

    replication_factor: int | None = None


def load_retrieval_settings(path: Path = CONFIG) -> QdrantSettings:
    """See `load_settings`."""
    return load_settings(QdrantSettings, ENVIRONMENT, path)


def client_of(settings: RetrievalSettings, timeout_s: float) -> AsyncQdrantClient:
    """A client that neither asks the server for its version first nor waits longer than it must."""
    verify: dict[str, Any] = {"verify": settings.ca} if settings.ca else {}
    return AsyncQdrantClient(
        url=settings.url,
        port=None,
        api_key=settings.key,
        timeout=max(1, round(timeout_s)),
        check_compatibility=False,
        **verify,
    )


async def found_in(client: AsyncQdrantClient, name: str) -> Found:
    """Raises NotIndexed when there is no such collection or alias."""
    try:
        described = await client.get_collection(name)
    except UnexpectedResponse as error:
        raise NotIndexed(name) if error.status_code == NOT_FOUND else error from None
    vectors = described.config.params.vectors
    if not isinstance(vectors, models.VectorParams):
        return Found(0, "named or no vectors")
    return Found(vectors.size, vectors.distance.value.lower())


def filter_of(where: Mapping[str, Condition]) -> models.Filter | None:
    """All conditions at once, in Qdrant's words."""
    conditions: list[models.Condition] = []
    for field, wanted in where.items():
        key = f"metadata.{field}"
        if isinstance(wanted, Range):
            conditions.append(models.FieldCondition(key=key, range=models.Range(**wanted.bounds)))
        elif isinstance(wanted, list):
            # Numbers and texts are looked up in different indexes.
            groups = [[one for one in wanted if isinstance(one, kind)] for kind in (int, str)]
            conditions.append(
                models.Filter(
                    should=[
                        models.FieldCondition(key=key, match=models.MatchAny(any=group))  # type: ignore[arg-type]
                        for group in groups
                        if group
                    ]
                )
            )
        else:
            conditions.append(models.FieldCondition(key=key, match=models.MatchValue(value=wanted)))
    return models.Filter(must=conditions) if conditions else None


class QdrantRetriever:
    """See `retrieval.Retriever`. All vectors of a search are one round trip."""

    def __init__(self, settings: QdrantSettings) -> None:
        self._alias = settings.alias
        self._client = client_of(settings, settings.deadline_ms / 1e3)

    async def open(self, dimension: int) -> None:
        check_index(self._alias, await found_in(self._client, self._alias), dimension)

    async def search(
        self, vectors: Sequence[Sequence[float]], limit: int, where: Mapping[str, Condition]
    ) -> list[list[Hit]]:
        condition = filter_of(where)
        questions = [
            models.QueryRequest(query=list(vector), limit=limit, filter=condition, with_payload=True)
            for vector in vectors
        ]
        try:
            answers = await self._client.query_batch_points(self._alias, requests=questions)
        except UnexpectedResponse as error:
            if error.status_code == NOT_FOUND:
                raise NotIndexed(self._alias) from None
            raise SearchRefused(str(error)) if error.status_code in REFUSED else error from None
        return [
            [
                Hit.model_construct(
                    id=payload["id"], text=payload["text"], score=point.score, metadata=payload["metadata"]
                )
                for point in answer.points
                if (payload := point.payload) is not None
            ]
            for answer in answers
        ]

    async def close(self) -> None:
        await self._client.close()


class QdrantIndexWriter:
    """See `retrieval.IndexWriter`."""

    def __init__(self, settings: QdrantSettings) -> None:
        self._alias = settings.alias
        self._replication_factor = settings.replication_factor
        self._client = client_of(settings, JOB_TIMEOUT_S)
        self._name = ""

    async def begin(self, build: str, dimension: int, fields: Mapping[str, type]) -> None:
        self._name = build
        try:
            check_index(build, await found_in(self._client, build), dimension)
        except NotIndexed:
            await self._client.create_collection(
                build,
                vectors_config=models.VectorParams(size=dimension, distance=models.Distance.COSINE),
                replication_factor=self._replication_factor,
            )
        for field, kind in fields.items():
            await self._client.create_payload_index(build, f"metadata.{field}", KINDS[kind])

    async def present(self, ids: Sequence[str]) -> set[str]:
        points = {stable_id(each): each for each in ids}
        records = await self._client.retrieve(self._name, list(points), with_payload=False, with_vectors=False)
        return {points[str(record.id)] for record in records}

    async def upsert(self, documents: Sequence[Document], vectors: Sequence[Sequence[float]]) -> None:
        batch = models.Batch.model_construct(
            ids=[stable_id(document.id) for document in documents],
            vectors=[list(vector) for vector in vectors],
            payloads=[document.model_dump() for document in documents],
        )
        await self._client.upsert(self._name, batch, wait=True)

    async def count(self) -> int:
        return (await self._client.count(self._name, exact=True)).count

    async def serve(self) -> None:
        """One change of all aliases: at no moment is there none."""
        old = [each for each in (await self._client.get_aliases()).aliases if each.alias_name == self._alias]
        changes: list[models.AliasOperations] = [
            models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=each.alias_name)) for each in old
        ]
        made = models.CreateAlias(collection_name=self._name, alias_name=self._alias)
        await self._client.update_collection_aliases([*changes, models.CreateAliasOperation(create_alias=made)])

    async def unserved(self) -> list[str]:
        collections, aliases = await asyncio.gather(self._client.get_collections(), self._client.get_aliases())
        kept = {self._name, *(each.collection_name for each in aliases.aliases)}
        names = (each.name for each in collections.collections)
        return sorted(name for name in names if name.startswith(f"{self._alias}-") and name not in kept)

    async def drop(self, name: str) -> None:
        await self._client.delete_collection(name)

    async def close(self) -> None:
        await self._client.close()
