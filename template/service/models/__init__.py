"""One file per model, each a plain class that loads weights and predicts a batch. These files are the team's."""
