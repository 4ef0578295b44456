"""Write features from JSON Lines into the store: `python -m jobs.write_features FILE`.

One line is `{"view": "user_activity", "entity": "user-1", "at": "2026-01-31T12:00:00Z", "values": {...}}`; `at` is when
it happened, and `now` is allowed. Empty lines and lines that begin with # are skipped. The whole file is checked before
anything is written, and writing twice is safe.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from service.features.views import VIEWS
from service.runtime.feature_store import FeatureWriter, StoreError, load_feature_settings
from service.runtime.features import EntityKey, Row, View, check_row, views_of
from service.runtime.settings import SettingsError, explain


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid")
    view: str
    entity: EntityKey
    at: AwareDatetime | Literal["now"]
    values: dict[str, Any]


def rows_of(lines: list[str], now_s: float) -> Iterator[Row]:
    """The rows of a file; ValueError names the line and what is wrong with it."""
    views = {view.name: view for view in views_of(VIEWS)}
    for number, text in enumerate(lines, start=1):
        if not text.strip() or text.startswith("#"):
            continue
        try:
            line = Line.model_validate_json(text)
            if line.view not in views:
                raise ValueError(f"there is no view {line.view!r}; there are {', '.join(views)}")
            view = views[line.view]
            kind = _type_of(view)
            if unknown := line.values.keys() - kind.model_fields.keys():
                raise ValueError(
                    f"{view.name} has no {', '.join(sorted(unknown))}; it has {', '.join(kind.model_fields)}"
                )
            at_s = line.at.timestamp() if isinstance(line.at, datetime) else now_s
            # As JSON: strict Python takes no text for a date or a member of an enumeration.
            values = kind.model_validate_json(json.dumps(line.values), strict=True)
            row = Row(view, line.entity, values, at_s)
            check_row(row, now_s)
            yield row
        except ValidationError as error:
            raise ValueError(f"line {number} cannot be used:\n{explain(error)}") from None
        except ValueError as error:
            raise ValueError(f"line {number} cannot be used: {error}") from None


def _type_of(view: View) -> type[BaseModel]:
    """What one row of the view holds: all its fields, or one event of a history."""
    if view.last is None:
        return view.declared
    (field,) = view.declared.model_fields.values()
    (event,) = get_args(field.annotation)
    return event  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m jobs.write_features", description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="JSON Lines")
    options = parser.parse_args()
    try:
        rows = list(rows_of(options.file.read_text(encoding="utf-8-sig").split("\n"), time.time()))
    except SettingsError as error:
        sys.exit(f"no rows are written: {error}")
    except (OSError, ValueError) as error:
        sys.exit(f"{options.file}: {error}")
    try:
        writer = FeatureWriter(load_feature_settings())
        count = writer.write(rows)
        writer.close()
    except SettingsError as error:
        sys.exit(f"no rows are written: {error}")
    except StoreError as error:
        sys.exit(f"the feature store did not take all rows; mend the cause and write them again: {error}")
    print(f"{count} rows written from {options.file}")


if __name__ == "__main__":
    main()
