"""Semantic IDs: items get codes, and search over codes never leaves the catalog."""
