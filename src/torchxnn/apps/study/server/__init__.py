"""The web application that participants and researchers see."""

from torchxnn.apps.study.server.app import create_app

__all__ = ["create_app"]
