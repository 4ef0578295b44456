"""The views of the feature store: what is known about an entity. This file is yours: updates never touch it.

A view is a pydantic model. A field's type is what the model gets, its default what the model gets when the store has
nothing valid. Besides its fields a view says:

view: its name, in keys, metrics and responses. version: raise it when the meaning of a field changes.
entity: the field of a request that names the entity.
max_age_s: older values are stale, and defaults are used. keep_s: how long the store keeps them after the last write.
last: only for a history, whose one field is a list: how many events are kept and read, newest first.
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


class Event(BaseModel):
    """One thing that a user did, such as `viewed` `walking shoes`."""

    kind: str
    item: str


class RecentEvents(BaseModel):
    """What a user did of late: a history, newest first."""

    view: ClassVar[str] = "recent_events"
    version: ClassVar[int] = 1
    entity: ClassVar[str] = "user_id"
    max_age_s: ClassVar[float] = 7 * 24 * 3600
    keep_s: ClassVar[int] = 30 * 24 * 3600
    last: ClassVar[int] = 20

    events: list[Event] = []


VIEWS: tuple[type[BaseModel], ...] = (UserActivity, RecentEvents)
