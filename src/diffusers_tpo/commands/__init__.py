"""The doors of the console: how commands read their flags, and `diffusers-tpo`."""
