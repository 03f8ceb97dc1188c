"""The commands, one module each; groups of commands are packages."""
