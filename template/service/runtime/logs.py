"""Structured logs: one JSON object per line on standard error. Level by `LOG_LEVEL`, default INFO."""

import logging
import os

from pythonjsonlogger.json import JsonFormatter


def configure_logs() -> None:
    """Send the service's own records as JSON lines to standard error; safe to call twice."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp="time",
        )
    )
    logger = logging.getLogger("service")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(os.environ.get("LOG_LEVEL", "INFO").upper())
