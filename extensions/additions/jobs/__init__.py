"""Jobs beside the service: they fill what it reads."""
