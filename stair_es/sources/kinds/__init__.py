"""The built-in source kinds: files, tables, tars, URL lists, data sets."""
