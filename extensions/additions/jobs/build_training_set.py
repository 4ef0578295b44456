"""Join labels with the features of their moment: `python -m jobs.build_training_set SERVICE LABELS OUT`.

LABELS is a Parquet file with a column for each entity key, `event_timestamp` (when the prediction would have been made,
with its time zone) and whatever else belongs to a row, such as the label. OUT has the same rows in the same order, and
the features of the feature service SERVICE as serving would have seen them then: of no later event, and of no row
written later.
`--rewritten` also takes rows that were written later, for a history that was filled afterwards.
"""

import argparse
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from service.runtime.feast_import import Feast, StoreError
from service.runtime.features_feast import load_feast_settings, need_history
from service.runtime.settings import SettingsError

TIME = "event_timestamp"
# Feast gives rows in any order.
PLACE = "_row"


class TrainingSetError(Exception):
    """The training set cannot be made, or would not hold what it should."""


def training_set(feast: Feast, service: str, labels: pd.DataFrame, rewritten: bool = False) -> pd.DataFrame:
    """`labels` with the features of `service` at each row's moment, in the same order. Raises TrainingSetError."""
    found = feast.get_feature_service(service)
    read = list(_read(feast, found.feature_view_projections))
    keys = {each.join_key_map.get(key, key) for each, view in read for key in view.join_keys}
    _check_labels(labels, {key for key in keys if not key.startswith("__dummy")})  # Feast's own, of views of no entity
    names = {feature.name for each, _ in read for feature in each.features}
    if taken := sorted(names & set(labels)):
        raise TrainingSetError(
            f"{', '.join(taken)} is a column of the labels and a feature of {service}: rename it there"
        )
    for _, view in read:
        if hasattr(view, "batch_source"):  # which on-demand views have not
            need_history(view)
    rows = labels.reset_index(drop=True).assign(**{PLACE: range(len(labels))})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Feast's own dependencies
        made = feast.get_historical_features(rows, found, filter_by_created_timestamp=not rewritten).to_df()
    if len(made) != len(labels):
        raise TrainingSetError(f"{len(labels)} rows went in and {len(made)} came out: nothing is written")
    return made.sort_values(PLACE, ignore_index=True).drop(columns=PLACE)


def _read(feast: Feast, projections: Any) -> Iterator[tuple[Any, Any]]:
    """What is read of each feature view, and the view: also of those from which on-demand views are worked out."""
    for projection in projections:
        view = feast.registry.get_any_feature_view(projection.name, feast.project)
        yield projection, view
        yield from _read(feast, getattr(view, "source_feature_view_projections", {}).values())


def _check_labels(labels: pd.DataFrame, keys: set[str]) -> None:
    if absent := sorted({TIME, *keys} - set(labels)):
        raise TrainingSetError(f"the labels have no column {', '.join(absent)}; they have {', '.join(labels)}")
    kind = labels[TIME].dtype
    if not isinstance(kind, pd.DatetimeTZDtype):
        raise TrainingSetError(
            f"the column {TIME} is {kind}, without a time zone, and hours off a row would see its future: say which "
            f'time it is, as with labels["{TIME}"].dt.tz_localize("Europe/Berlin"), or pd.to_datetime(..., utc=True) '
            "for numbers and texts in UTC"
        )


def read_labels(path: Path) -> pd.DataFrame:
    """Raises TrainingSetError when the file is no Parquet, and OSError when there is none."""
    try:
        return pd.read_parquet(path)
    except ValueError as error:
        raise TrainingSetError(f"{path} is not Parquet; write it with DataFrame.to_parquet: {error}") from error


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m jobs.build_training_set", description=__doc__.partition("\n")[0])
    parser.add_argument("service", help="feature service, such as the model's name and version: minilm_v1")
    parser.add_argument("labels", type=Path, help="Parquet file")
    parser.add_argument("out", type=Path, help="Parquet file to write")
    parser.add_argument("--rewritten", action="store_true", help="take rows that were written after the label's moment")
    options = parser.parse_args()
    try:
        if not options.out.parent.is_dir():
            raise TrainingSetError(
                f"there is no folder {options.out.parent}, where {options.out.name} is to be: make it"
            )
        labels = read_labels(options.labels)
        feast = Feast(fs_yaml_file=load_feast_settings().path)
        made = training_set(feast, options.service, labels, options.rewritten)
    except (*StoreError, SettingsError, TrainingSetError) as error:
        sys.exit(f"no training set: {error}")
    made.to_parquet(options.out)
    empty = made.columns[made.isna().all()].tolist()
    print(f"{len(made)} rows in {options.out}" + (f"; empty in all of them: {', '.join(empty)}" if empty else ""))


if __name__ == "__main__":
    main()
