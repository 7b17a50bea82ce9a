"""What runs the service: `local` (one process) or `ray` (Ray Serve)."""
