"""One kit that every store passes."""
