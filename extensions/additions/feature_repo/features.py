"""Feast's definitions of the views in `service/features/views.py`. This file is yours: updates never touch it.

`make plan` shows what a change would do to the registry, `make apply` does it.
"""

from datetime import timedelta
from typing import Any

from feast import Entity, FeatureView, Field, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64
from sources import pushed

from service.features.views import UserActivity

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)

user_activity = FeatureView(
    name="user_activity_v1",
    entities=[user],
    # For training what `max_age_s` is for serving: an older value counts as none.
    ttl=timedelta(seconds=UserActivity.max_age_s),
    schema=[Field(name="orders_7d", dtype=Int64), Field(name="spend_7d", dtype=Float64)],
    source=pushed("user_activity_v1"),
)


@on_demand_feature_view(sources=[user_activity], schema=[Field(name="spend_per_order", dtype=Float64)], mode="python")
def user_ratios_v1(inputs: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """What a model works out from its views, for training sets: by the same code, with the same defaults."""
    from service.features.views import UserActivity  # here, as Feast keeps the text of this function alone

    rows = [dict(zip(inputs, values, strict=True)) for values in zip(*inputs.values(), strict=True)]
    known = [{name: row[name] for name in UserActivity.model_fields if row[name] is not None} for row in rows]
    return {"spend_per_order": [UserActivity(**each).spend_per_order for each in known]}
