"""Names of people, places and organisations: a spaCy model in a process of its own, asked with a time limit."""
