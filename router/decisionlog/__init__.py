"""The decision log: one JSON line per request, hash-chained, so that what was decided can be shown and replayed."""
