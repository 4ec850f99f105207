"""What is wrong with how Doorbuster is run here."""


class Misconfigured(Exception):
    """The settings or the machine will not do. The message is one line that says why."""
