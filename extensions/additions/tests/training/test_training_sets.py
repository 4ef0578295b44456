"""Training sets: as serving would have seen each row at its moment, no row more and none less."""

import subprocess
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import pandas as pd
import pytest

from jobs import build_training_set
from jobs.build_training_set import TrainingSetError, training_set
from jobs.materialize_features import materialize
from service.features.views import VIEWS
from service.runtime.feast_import import Feast, PushMode
from service.runtime.features import View
from service.runtime.features_feast import feast_name, load_feast_settings

VIEW = View.of(VIEWS[0])
HOUR = timedelta(hours=1)
NOW = datetime.now(UTC).replace(microsecond=0)
# Two values of each type of field, to tell an older row from a newer one.
SAMPLES: dict[Any, tuple[Any, Any]] = {int: (3, 7), float: (1.5, 42.0), str: ("old", "new"), bool: (False, True)}


@pytest.fixture(scope="module")
def feast() -> Feast:
    return Feast(fs_yaml_file=load_feast_settings().path)


@pytest.fixture
def entity() -> str:
    return uuid.uuid4().hex


@pytest.fixture(params=[path.stem for path in sorted(Path("feature_repo/services").glob("*.py"))])
def service(request: pytest.FixtureRequest, feast: Feast) -> Any:
    """Each feature service in turn; one per version of a model."""
    (found,) = [each for each in feast.list_feature_services() if each.name.startswith(f"{request.param}_v")][-1:]
    return found


def values(which: int) -> dict[str, Any]:
    """The older (0) or the newer (1) sample of each field."""
    return {name: sample(field.annotation)[which] for name, field in VIEW.declared.model_fields.items()}


def sample(annotation: Any) -> tuple[Any, Any]:
    """Also of an optional field, such as `int | None`."""
    plain = [each for each in get_args(annotation) if each is not NoneType]
    return sample(*plain) if len(plain) == 1 else SAMPLES[annotation]


def row(entity: str, which: int, at: datetime, created: datetime | None = None) -> pd.DataFrame:
    stamps = {"event_timestamp": at, "created": created or at}
    return pd.DataFrame([{VIEW.entity: entity, **stamps, **values(which)}])


@pytest.fixture
def push(feast: Feast) -> Callable[..., None]:
    """Writes rows to the history only, or (online=True) to the online store as well."""

    def pushed(*rows: pd.DataFrame, online: bool = False) -> None:
        to = PushMode.ONLINE_AND_OFFLINE if online else PushMode.OFFLINE
        for one in rows:
            feast.push(f"{feast_name(VIEW)}_push", one, to=to)

    return pushed


def labels(entity: str, *at: datetime) -> pd.DataFrame:
    return pd.DataFrame({VIEW.entity: entity, "event_timestamp": at, "label": range(len(at))})


def read_online(feast: Feast, service: Any, entity: str) -> dict[str, Any]:
    found = feast.get_online_features(service, [{VIEW.entity: entity}]).to_dict()
    return {name: column[0] for name, column in found.items() if name != VIEW.entity}


def test_training_sees_what_serving_sees_at_the_same_moment(
    feast: Feast, service: Any, entity: str, push: Callable[..., None]
) -> None:
    push(row(entity, 0, NOW - 2 * HOUR), row(entity, 1, NOW - HOUR), online=True)
    online = read_online(feast, service, entity)
    (trained,) = training_set(feast, service.name, labels(entity, NOW)).to_dict("records")
    assert online == {name: trained[name] for name in online}
    assert online.items() >= values(1).items()


def test_no_row_sees_its_future_and_none_is_dropped(
    feast: Feast, service: Any, entity: str, push: Callable[..., None]
) -> None:
    push(row(entity, 0, NOW - 3 * HOUR), row(entity, 1, NOW - HOUR))
    moments = [NOW, NOW - 2 * HOUR, NOW - 4 * HOUR, NOW]  # out of order, one of them twice
    known = labels(entity, *moments)
    unknown = labels("nobody-" + entity, NOW)
    made = training_set(feast, service.name, pd.concat([known, unknown], ignore_index=True))
    assert list(made["label"]) == [0, 1, 2, 3, 0]
    assert list(made["event_timestamp"]) == [*moments, NOW]
    for name in VIEW.fields:
        old, new = values(0)[name], values(1)[name]
        assert [None if pd.isna(value) else value for value in made[name]] == [new, old, None, new, None]


def test_a_row_that_arrived_late_is_ignored_unless_asked_for(
    feast: Feast, service: Any, entity: str, push: Callable[..., None]
) -> None:
    push(row(entity, 0, NOW - 5 * HOUR), row(entity, 1, NOW - 3 * HOUR, created=NOW - HOUR))
    asked = labels(entity, NOW - 2 * HOUR)
    (as_served,) = training_set(feast, service.name, asked).to_dict("records")
    (rewritten,) = training_set(feast, service.name, asked, rewritten=True).to_dict("records")
    assert as_served.items() >= values(0).items()
    assert rewritten.items() >= values(1).items()


def test_a_value_too_old_for_serving_is_none_in_training(
    feast: Feast, service: Any, entity: str, push: Callable[..., None]
) -> None:
    push(row(entity, 0, NOW - timedelta(seconds=VIEW.max_age_s) - HOUR))
    (made,) = training_set(feast, service.name, labels(entity, NOW)).to_dict("records")
    assert all(pd.isna(made[name]) for name in VIEW.fields)


@pytest.mark.parametrize(
    "moments",
    [[datetime(2026, 1, 31, 12)], [1769860800], ["2026-01-31T12:00:00Z"], [NOW, NOW.astimezone(timezone(HOUR))]],
    ids=["naive", "numbers", "texts", "several zones"],
)
def test_times_of_no_time_zone_are_refused_as_a_row_could_see_its_future(
    feast: Feast, service: Any, entity: str, moments: list[Any]
) -> None:
    asked = labels(entity, *moments)
    with pytest.raises(TrainingSetError, match=r"column event_timestamp is .*without a time zone.*tz_localize"):
        training_set(feast, service.name, asked)


def test_a_time_zone_of_any_place_is_a_moment(
    feast: Feast, service: Any, entity: str, push: Callable[..., None]
) -> None:
    push(row(entity, 0, NOW - 2 * HOUR), row(entity, 1, NOW - HOUR / 2))
    abroad = labels(entity, (NOW - HOUR).astimezone(timezone(5 * HOUR)))
    (made,) = training_set(feast, service.name, abroad).to_dict("records")
    assert made.items() >= values(0).items()


def test_labels_without_the_entity_or_with_a_column_named_like_a_feature_are_refused(
    feast: Feast, service: Any, entity: str
) -> None:
    asked = labels(entity, NOW)
    with pytest.raises(TrainingSetError, match=f"the labels have no column {VIEW.entity}; they have"):
        training_set(feast, service.name, asked.drop(columns=VIEW.entity))
    with pytest.raises(TrainingSetError, match=f"{VIEW.fields[0]} is a column of the labels and a feature of"):
        training_set(feast, service.name, asked.assign(**{VIEW.fields[0]: 1}))


def test_a_join_that_loses_rows_writes_nothing(
    feast: Feast, service: Any, entity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = feast.get_historical_features

    class Lossy:
        def __init__(self, rows: pd.DataFrame, *rest: Any, **options: Any) -> None:
            self.found = whole(rows, *rest, **options)

        def to_df(self) -> pd.DataFrame:
            return self.found.to_df().iloc[1:]

    monkeypatch.setattr(feast, "get_historical_features", Lossy)
    with pytest.raises(TrainingSetError, match="2 rows went in and 1 came out"):
        training_set(feast, service.name, labels(entity, NOW, NOW - HOUR))


def test_what_is_only_in_the_history_reaches_serving_and_twice_is_as_once(
    feast: Feast, service: Any, entity: str, push: Callable[..., None]
) -> None:
    push(row(entity, 0, NOW - 2 * HOUR), row(entity, 1, NOW - HOUR))
    assert {read_online(feast, service, entity)[name] for name in VIEW.fields} == {None}
    assert materialize(feast, NOW - timedelta(days=2), NOW) >= 1
    once = read_online(feast, service, entity)
    assert once.items() >= values(1).items()
    materialize(feast, None, NOW + HOUR)
    assert read_online(feast, service, entity) == once


def test_the_command_says_what_it_wrote_and_what_is_wrong(service: Any, entity: str, tmp_path: Path) -> None:
    path, out = tmp_path / "labels.parquet", tmp_path / "out.parquet"
    labels(entity, NOW).to_parquet(path)
    command = [sys.executable, "-m", "jobs.build_training_set"]
    done = subprocess.run([*command, service.name, path, out], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 rows in ")
    assert len(pd.read_parquet(out)) == 1
    done = subprocess.run([*command, "nothing_v1", path, out], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "nothing_v1" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_says_that_labels_are_no_parquet_and_that_there_is_no_folder_for_its_output(
    service: Any, entity: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, text = tmp_path / "labels.parquet", tmp_path / "labels.csv"
    labels(entity, NOW).to_parquet(path)
    labels(entity, NOW).to_csv(text)
    for given, out, words in (
        (text, tmp_path / "out.parquet", "labels.csv is not Parquet; write it with DataFrame.to_parquet"),
        (path, tmp_path / "none/out.parquet", "there is no folder .*none, where out.parquet is to be"),
    ):
        monkeypatch.setattr("sys.argv", ["build_training_set", service.name, str(given), str(out)])
        with pytest.raises(SystemExit, match=f"no training set: .*{words}"):
            build_training_set.main()
