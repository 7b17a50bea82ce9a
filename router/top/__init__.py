"""`pointsman top`: a router's metrics as a terminal shows them. Reading, rates and showing are apart."""
