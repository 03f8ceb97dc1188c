"""Plugins that write documents; the search cluster is the built-in one."""
