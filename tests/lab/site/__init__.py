"""The site that runs on the practice VPS."""
