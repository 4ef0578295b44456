"""Join labels with the features of their moment: `python -m jobs.build_training_set SERVICE LABELS OUT`.

LABELS is a Parquet file with a column for each entity key, `event_timestamp` (when the prediction would have been made)
and whatever else belongs to a row, such as the label. OUT has the same rows in the same order, and the features of the
feature service SERVICE as serving would have seen them then: of no later event, and of no row written later.
`--rewritten` also takes rows that were written later, for a history that was filled afterwards.
"""

import argparse
import sys
import warnings
from pathlib import Path

import pandas as pd

from service.runtime.feast_import import Feast, StoreError
from service.runtime.features_feast import load_feast_settings
from service.runtime.settings import SettingsError

TIME = "event_timestamp"
# Feast gives rows in any order.
PLACE = "_row"


class TrainingSetError(Exception):
    """The training set cannot be made, or would not hold what it should."""


def training_set(feast: Feast, service: str, labels: pd.DataFrame, rewritten: bool = False) -> pd.DataFrame:
    """`labels` with the features of `service` at each row's moment, in the same order. Raises TrainingSetError."""
    if TIME not in labels:
        raise TrainingSetError(f"the labels have no column {TIME}; they have {', '.join(labels)}")
    rows = labels.reset_index(drop=True).assign(**{PLACE: range(len(labels))})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Feast's own dependencies
        found = feast.get_historical_features(
            rows, feast.get_feature_service(service), filter_by_created_timestamp=not rewritten
        ).to_df()
    if len(found) != len(labels):
        raise TrainingSetError(f"{len(labels)} rows went in and {len(found)} came out: nothing is written")
    return found.sort_values(PLACE, ignore_index=True).drop(columns=PLACE)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m jobs.build_training_set", description=__doc__.partition("\n")[0])
    parser.add_argument("service", help="feature service, such as the model's name and version: minilm_v1")
    parser.add_argument("labels", type=Path, help="Parquet file")
    parser.add_argument("out", type=Path, help="Parquet file to write")
    parser.add_argument("--rewritten", action="store_true", help="take rows that were written after the label's moment")
    options = parser.parse_args()
    try:
        feast = Feast(fs_yaml_file=load_feast_settings().path)
        labels = pd.read_parquet(options.labels)
        made = training_set(feast, options.service, labels, options.rewritten)
    except (*StoreError, SettingsError, TrainingSetError) as error:
        sys.exit(f"no training set: {error}")
    made.to_parquet(options.out)
    empty = made.columns[made.isna().all()].tolist()
    print(f"{len(made)} rows in {options.out}" + (f"; empty in all of them: {', '.join(empty)}" if empty else ""))


if __name__ == "__main__":
    main()
