"""What the commands print: tables, bars, progress, reports, logs."""
