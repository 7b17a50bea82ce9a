"""What the router tells of itself: metrics, and what they are made from."""
