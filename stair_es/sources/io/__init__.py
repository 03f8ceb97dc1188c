"""Local files, object stores and table cells: locators, listing, reading."""
