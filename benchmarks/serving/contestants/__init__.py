"""The servers that are measured, one module each; all run the generated service's model class on one thread."""
