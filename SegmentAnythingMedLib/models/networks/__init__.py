"""Own compact torch networks that keep the key names of the original checkpoints."""
