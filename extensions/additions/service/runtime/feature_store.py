"""Which feature store this service has: for whatever reads, writes or configures it."""

from redis.exceptions import RedisError as StoreError

from service.runtime.feature_writer_redis import RedisFeatureWriter as FeatureWriter
from service.runtime.features_redis import RedisFeatureStore as FeatureReader
from service.runtime.features_redis import load_redis_settings as load_feature_settings

__all__ = ["FeatureReader", "FeatureWriter", "StoreError", "load_feature_settings"]
