"""What every caller may rely on, tested over HTTP on a started service; the same suite in both serving modes."""
