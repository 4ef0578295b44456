"""What counting, logging of stages and tracing cost."""
