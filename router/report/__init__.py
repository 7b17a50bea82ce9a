"""`pointsman report`: what the decision log says of a stretch of time. Reading, summing up and showing are apart."""
