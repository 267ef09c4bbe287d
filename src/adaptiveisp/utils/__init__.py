"""Tools that do not depend on images: files, configuration, registries, provenance, optional imports."""
