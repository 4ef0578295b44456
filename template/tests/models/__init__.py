"""One file per model. Each also offers the contract suite `save_weights`, `EXAMPLE` and `LONG_EXAMPLE`."""
