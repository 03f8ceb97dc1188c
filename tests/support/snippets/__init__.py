"""Run the commands and the code of the documentation pages."""
