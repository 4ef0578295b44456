"""The views of the feature store: what is known about an entity. This file is yours: updates never touch it.

A view is a pydantic model. A field's type is what the model gets, its default what the model gets when the store has
nothing valid. Besides its fields a view says:

view: its name, in keys, metrics and responses. version: raise it when the meaning of a field changes.
entity: the field of a request that names the entity.
max_age_s: older values are stale, and defaults are used.
keep_s: at least max_age_s, in whole seconds. Only Redis without Feast deletes by it: with Feast it is `key_ttl_seconds`
    in `feature_repo/production.yaml`, for all views of an entity at once; keep that above every max_age_s.

A field is an int, float, str, bool, date, datetime, an Enum of these, a list of one of these, or None.

Feast's own definitions of the same views are in `feature_repo/features.py`.
"""

from typing import ClassVar

from pydantic import BaseModel


class UserActivity(BaseModel):
    """How active a user is: aggregates, one value per field."""

    view: ClassVar[str] = "user_activity"
    version: ClassVar[int] = 1
    entity: ClassVar[str] = "user_id"
    max_age_s: ClassVar[float] = 24 * 3600
    keep_s: ClassVar[int] = 7 * 24 * 3600

    orders_7d: int = 0
    spend_7d: float = 0.0

    @property
    def spend_per_order(self) -> float:
        """Worked out from the fields, here for serving and for training alike."""
        return self.spend_7d / self.orders_7d if self.orders_7d else 0.0


VIEWS: tuple[type[BaseModel], ...] = (UserActivity,)
