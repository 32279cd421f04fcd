"""The web application that participants and researchers see."""
