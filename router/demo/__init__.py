"""The demo: three tiers on one machine, answering with real models that install from the package registry."""
