"""The model service: `models/` is the team's, `runtime/` is the platform's."""
