"""Structured logs: one JSON object per line on standard error. Level by `LOG_LEVEL`, default INFO."""

import logging
import os

from pythonjsonlogger.json import JsonFormatter

from service.runtime.settings import SettingsError


def configure_logs() -> None:
    """Send the service's own records as JSON lines to standard error; safe to call twice. Raises SettingsError."""
    level = os.environ.get("LOG_LEVEL", "INFO").upper()
    if level not in logging.getLevelNamesMapping():
        raise SettingsError(f"LOG_LEVEL is {level!r}: give DEBUG, INFO, WARNING or ERROR")
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
    logger.setLevel(level)
