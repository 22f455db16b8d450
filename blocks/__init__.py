"""What the operator configures and keeps secret."""
