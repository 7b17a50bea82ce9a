"""`pointsman simulate`: recorded traffic under another policy."""
