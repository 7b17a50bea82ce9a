"""The live service: HTTP apps, execution, state, telemetry, engines and the command line."""

__version__ = "0.1.0"
