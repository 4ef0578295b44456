"""Which vector database this service has: for whatever searches it, fills it or configures it."""

from service.runtime.retrieval_qdrant import DatabaseError, load_retrieval_settings
from service.runtime.retrieval_qdrant import QdrantIndexWriter as IndexWriter
from service.runtime.retrieval_qdrant import QdrantRetriever as IndexReader

__all__ = ["DatabaseError", "IndexReader", "IndexWriter", "load_retrieval_settings"]
