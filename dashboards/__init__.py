"""What Grafana shows, as code: `make dashboards` writes configs/grafana/*.json from here.

Every panel answers the question in its title. Nothing of the router is imported: a dashboard knows metrics by their
names, and tests hold those against the instruments and against a Prometheus that scrapes a router.
"""
