"""Commands about the installation: configuration, diagnosis, models, node, sizing, plugins."""
