"""The project's version; CHANGELOG.md lists its changes."""

VERSION = "0.1.0"
