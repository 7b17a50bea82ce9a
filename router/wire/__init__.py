"""The protocols that clients speak: each parses a body into what routing needs, and renders answers and errors."""
