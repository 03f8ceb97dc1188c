"""Sources of images: files, object stores, tables, tars, datasets and URLs; reading and decoding their images."""
