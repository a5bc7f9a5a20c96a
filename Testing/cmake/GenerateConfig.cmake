# Slicer writes the configuration for extensions that build on this one here; the tests have no use for it.
