"""The project's version; CHANGELOG.md says what is in it."""

VERSION = "0.2.0"
