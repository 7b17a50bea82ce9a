"""The sensitivity label of a request: who raised it, and what was found. Findings carry types and counts only."""
