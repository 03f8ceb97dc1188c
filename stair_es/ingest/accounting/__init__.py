"""Run accounting: outcomes, their report, the manifest and the dead letters."""
