"""How the models of this service use documents. This folder is yours: updates never touch it."""
