"""The platform's half of the service. Updates replace these files: change answers or `models/`, not this folder."""
