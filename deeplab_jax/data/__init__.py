"""Data sets in the layouts people have, fed to the device in batches of one shape."""
