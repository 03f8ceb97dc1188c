"""The page in Chromium: a server with photos, waiting, hostile documents."""
