"""The feature store on Feast: settings, the check that it holds what models read, one read for all that wait.

A view `user_activity` of version 1 is the feature view `user_activity_v1`; the field of a request that names the entity
is the entity's join key. Feast does not enforce a view's `ttl` on online reads: the maximum age is ours to check.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from service.runtime.deadlines import SharedReads
from service.runtime.feast_import import Feast, FeastObjectNotFoundException
from service.runtime.features import CONFIG, Answers, FeatureSettings, Lookup, Stored, View
from service.runtime.settings import SettingsError, load_settings

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
START_S = 5.0
OPEN_EVERY_S = 1.0


class FeastSettings(FeatureSettings):
    """`config/features.yaml`; FEATURE_STORE_CONFIG in the environment wins over it.

    config: Feast's own file, relative to the repository: feature_repo/feature_store.yaml on a laptop,
        feature_repo/production.yaml elsewhere. What it takes from the environment is said there.
    """

    config: Path

    @property
    def path(self) -> Path:
        return ROOT / self.config


def load_feast_settings(path: Path = CONFIG) -> FeastSettings:
    """See `load_settings`. SettingsError also names a variable that Feast's file needs and nobody set."""
    settings = load_settings(FeastSettings, {"config": "FEATURE_STORE_CONFIG"}, path)
    # On a laptop everything lies in one folder, which git ignores.
    if settings.path.name == "feature_store.yaml":
        os.environ.setdefault("FEATURE_DATA", str(settings.path.parent / "data"))
    try:
        text = os.path.expandvars(settings.path.read_text())
    except OSError as error:
        raise SettingsError(f"cannot read Feast's file {settings.path}: {error.strerror}") from error
    if "${" in text:
        variable = text.partition("${")[2].partition("}")[0]
        raise SettingsError(f"{settings.path} needs {variable}, which the environment does not hold: set it")
    return settings


def feast_name(view: View) -> str:
    """The name of the feature view that holds `view`."""
    return f"{view.name}_v{view.version}"


def local_history(feature_view: Any) -> Path | None:
    """The file that holds the history of a feature view; None where the history is no file of this machine."""
    path = str(getattr(feature_view.batch_source, "path", "://"))
    return None if "://" in path else Path(path)


def need_history(feature_view: Any) -> None:
    """SettingsError when nothing was ever written to the feature view."""
    path = local_history(feature_view)
    if path is not None and not path.exists():
        raise SettingsError(
            f"{feature_view.name} has no history, as there is no {path}: write rows first, with `make features`"
        )


class FeastFeatureStore:
    """See `features.FeatureStore`. Views are checked against the registry as soon as it can be read.

    A registry that cannot be read at start is tried again, once a second at most; until then there are only defaults.
    """

    def __init__(self, settings: FeastSettings) -> None:
        self._settings = settings
        self._views: Sequence[View] = ()
        self._reads = SharedReads(self._read, settings.deadline_ms / 1e3)
        # For stores that Feast reads without async, such as SQLite on a laptop.
        self._thread = ThreadPoolExecutor(1, "feast")
        self._feast: Feast | None = None
        self._opening: asyncio.Future[None] | None = None
        self._opened_s = 0.0

    def check(self, views: Sequence[View]) -> None:
        for view in views:
            if view.last is not None:
                raise SettingsError(
                    f"the view {view.name} is a history, and Feast holds values only: "
                    "declare aggregates of it, or keep features=redis"
                )
        self._views = views
        self._features = {view.name: [f"{feast_name(view)}:{field}" for field in view.fields] for view in views}
        self._columns = {view.name: {field: f"{feast_name(view)}__{field}" for field in view.fields} for view in views}
        try:
            self._open()
        except SettingsError:
            raise
        except Exception as error:  # whatever the registry's library raises; it is tried again
            log.warning("feature registry not read", extra={"error": f"{type(error).__name__}: {error}"})

    async def start(self) -> None:
        views = [(view, "") for view in self._views]
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._read(views), START_S)

    async def read(self, wanted: Sequence[Lookup]) -> Answers:
        return await self._reads.read(wanted)

    async def close(self) -> None:
        self._reads.close()
        if self._feast is not None:
            await self._feast.close()
        self._thread.shutdown(wait=False)

    def _open(self) -> None:
        """Read the registry. Raises SettingsError when it lacks what the views declare."""
        feast = Feast(fs_yaml_file=self._settings.path)
        for view in self._views:
            check_view(feast, view)
        self._async = bool(feast._get_provider().async_supported.online.read)
        self._feast = feast  # last: from now on it is read

    async def _ready(self) -> Feast:
        if self._feast is None:
            if self._opening is None or (self._opening.done() and time.monotonic() - self._opened_s > OPEN_EVERY_S):
                self._opened_s = time.monotonic()
                self._opening = asyncio.get_running_loop().run_in_executor(self._thread, self._open)
            await asyncio.shield(self._opening)  # whoever asks may run out of time; the registry is read on
        return cast(Feast, self._feast)

    async def _read(self, wanted: list[Lookup]) -> Answers:
        """All lookups: one question per kind of entity, all at once."""
        feast = await self._ready()
        by_entity: dict[str, list[Lookup]] = {}
        for view, key in wanted:
            by_entity.setdefault(view.entity, []).append((view, key))
        found: dict[tuple[str, str], Stored | None] = {}
        groups = [self._of_entity(feast, entity, lookups) for entity, lookups in by_entity.items()]
        for answers in [await groups[0]] if len(groups) == 1 else await asyncio.gather(*groups):
            found |= answers
        return [found[view.name, key] for view, key in wanted]

    async def _of_entity(
        self, feast: Feast, entity: str, lookups: list[Lookup]
    ) -> dict[tuple[str, str], Stored | None]:
        """(view, key) -> what is stored, for views of one entity."""
        views = list({view.name: view for view, _ in lookups}.values())
        keys = list({key: None for _, key in lookups})
        features = [feature for view in views for feature in self._features[view.name]]
        question = {"features": features, "entity_rows": [{entity: key} for key in keys], "full_feature_names": True}
        if self._async:
            response = await feast.get_online_features_async(**question)
        else:
            loop = asyncio.get_running_loop()
            response = await loop.run_in_executor(self._thread, lambda: feast.get_online_features(**question))
        columns = response.to_dict(include_event_timestamps=True)
        found: dict[tuple[str, str], Stored | None] = {}
        for view in views:
            names = self._columns[view.name]
            times_s = columns[f"{names[view.fields[0]]}__ts"]  # all fields of a view have the same
            for row, key in enumerate(keys):
                values = {field: value for field, name in names.items() if (value := columns[name][row]) is not None}
                # Feast has no time for an entity that it never saw.
                found[view.name, key] = Stored(values, float(times_s[row])) if times_s[row] else None
        return found


def check_view(feast: Feast, view: View) -> None:
    """SettingsError unless the registry has the feature view, with the view's fields and entity."""
    name = feast_name(view)
    try:
        found = feast.get_feature_view(name)
    except FeastObjectNotFoundException as error:
        raise SettingsError(
            f"the feature registry has no feature view {name}: define it in feature_repo/features.py, then `make apply`"
        ) from error
    if absent := set(view.fields) - {field.name for field in found.features}:
        raise SettingsError(f"the feature view {name} has no {', '.join(sorted(absent))}: add it, and run `make apply`")
    if view.entity not in found.join_keys:
        raise SettingsError(f"the feature view {name} is read by {', '.join(found.join_keys)}, not by {view.entity}")
