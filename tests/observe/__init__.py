"""Alerts, runbooks and dashboards: they name what exists, fire when they should, and say what to do."""
