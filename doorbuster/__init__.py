"""The command: settings, wiring, roles, the embedded stack and the demo."""
