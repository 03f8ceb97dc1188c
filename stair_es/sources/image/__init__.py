"""From bytes to pixels: decoding, limits, EXIF, colors."""
