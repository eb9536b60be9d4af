"""What of the documentation is made from code and from text: `python -m docs.make` writes it."""
