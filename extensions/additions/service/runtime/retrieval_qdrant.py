"""Retrieval with Qdrant: an index is a collection, and an alias of Qdrant names the one that is served."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

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

DatabaseError = (ApiException, QdrantException, OSError)
NOT_FOUND = 404
REFUSED = (400, 422)
# An alias that ends so names an index that was served once and is no more.
SERVED_ONCE = "-served-once"
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
    return load_retrieval(QdrantSettings, path)


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
            texts = [one for one in wanted if isinstance(one, str)]
            some: list[models.Condition] = [equal(key, one) for one in wanted if not isinstance(one, str)]
            if texts:
                some.append(models.FieldCondition(key=key, match=models.MatchAny(any=texts)))
            conditions.append(models.Filter(should=some))
        else:
            conditions.append(equal(key, wanted))
    return models.Filter(must=conditions) if conditions else None


def equal(key: str, wanted: bool | float | str) -> models.FieldCondition:
    """That a field has this value. No match knows 5.0, and no range a whole number beyond 2**53 from the next."""
    if isinstance(wanted, bool | str) or (isinstance(wanted, int) and abs(wanted) > 2**53):
        return models.FieldCondition(key=key, match=models.MatchValue(value=wanted))
    return models.FieldCondition(key=key, range=models.Range(gte=wanted, lte=wanted))


def removed(aliases: Sequence[models.AliasDescription], names: set[str]) -> list[models.AliasOperations]:
    """What removes those of `names` that are there."""
    return [
        models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=each.alias_name))
        for each in aliases
        if each.alias_name in names
    ]


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
            found = await found_in(self._client, build)
        except NotIndexed:
            found = await self._made(build, dimension)
        check_index(build, found, dimension)
        if unmark := removed((await self._client.get_aliases()).aliases, {build + SERVED_ONCE}):
            await self._client.update_collection_aliases(unmark)
        for field, kind in fields.items():
            await self._client.create_payload_index(build, f"metadata.{field}", KINDS[kind])

    async def _made(self, build: str, dimension: int) -> Found:
        try:
            await self._client.create_collection(
                build,
                vectors_config=models.VectorParams(size=dimension, distance=models.Distance.COSINE),
                replication_factor=self._replication_factor,
            )
        except UnexpectedResponse as error:
            try:
                return await found_in(self._client, build)  # another job on the same file was faster
            except NotIndexed:
                raise error from None
        return Found(dimension, "cosine")

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
        aliases = (await self._client.get_aliases()).aliases
        old = {each.collection_name for each in aliases if each.alias_name == self._alias} - {self._name}
        made = {self._alias: self._name, **{name + SERVED_ONCE: name for name in old}}
        await self._client.update_collection_aliases(
            [
                *removed(aliases, {*made, self._name + SERVED_ONCE}),
                *(
                    models.CreateAliasOperation(create_alias=models.CreateAlias(alias_name=alias, collection_name=name))
                    for alias, name in made.items()
                ),
            ]
        )

    async def unserved(self) -> dict[str, bool]:
        collections, aliases = await asyncio.gather(self._client.get_collections(), self._client.get_aliases())
        once = {each.collection_name for each in aliases.aliases if each.alias_name.endswith(SERVED_ONCE)}
        served = {each.collection_name for each in aliases.aliases if not each.alias_name.endswith(SERVED_ONCE)}
        names = {each.name for each in collections.collections if each.name.startswith(f"{self._alias}-")}
        return {name: name in once for name in sorted(names - served - {self._name})}

    async def drop(self, name: str) -> bool:
        dropped = (await self.unserved()).get(name, False)
        if dropped:
            await self._client.delete_collection(name)
        return dropped

    async def close(self) -> None:
        await self._client.close()
