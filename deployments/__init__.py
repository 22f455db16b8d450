"""What starts the flows."""
