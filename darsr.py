"""``import darsr`` in a clone; an installed package has the folder ``export`` under this name (see pyproject.toml)."""

from export import __all__, __dir__, __getattr__, __path__  # noqa: F401, RUF100
