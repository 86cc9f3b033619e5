"""The one place where the version stands: distribution, images and served metadata take it from here."""

__version__ = "0.1.0"
