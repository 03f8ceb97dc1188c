"""A small caption set from packages: emoji drawings by vendor, clip art and stamps."""
