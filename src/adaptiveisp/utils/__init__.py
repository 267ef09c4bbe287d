"""Tools that know nothing of images: files, configuration, provenance, optional imports."""
