"""Backups of the vector database, against a real S3 server and nodes with the snapshot API of Qdrant."""
