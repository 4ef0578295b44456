"""`models/` is the team's, one file per model; `contract/` is the platform's: the HTTP API in any serving mode."""
