"""Models are opened as fakes in this folder."""

from fakes import opened  # noqa: F401 - pytest finds the fixture by its name here
