"""The desktop panel: everything that knows Qt. It connects, shows and polls; what is done is in the library."""
