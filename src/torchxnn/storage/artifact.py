"""What every file that torchxnn writes says about itself."""

from importlib.metadata import version

__version__ = version("torchxnn")
