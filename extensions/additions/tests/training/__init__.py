"""What training sees is what serving saw."""
