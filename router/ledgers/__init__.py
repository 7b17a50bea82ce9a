"""Budgets and limits across router processes: a central ledger leases out what is left, in chunks."""
