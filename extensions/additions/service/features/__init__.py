"""The features that models read: what there is (`views.py`), and how each model reads it. The team's files."""
