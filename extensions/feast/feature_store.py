"""Which feature store this service has: for whatever reads, writes or configures it."""

from service.runtime.feast_import import StoreError
from service.runtime.feature_writer_feast import FeastFeatureWriter as FeatureWriter
from service.runtime.features_feast import FeastFeatureStore as FeatureReader
from service.runtime.features_feast import load_feast_settings as load_feature_settings

__all__ = ["FeatureReader", "FeatureWriter", "StoreError", "load_feature_settings"]
