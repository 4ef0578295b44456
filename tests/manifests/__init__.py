"""Kubernetes manifests and alerts: valid by schema, whole in their references, and strict."""
