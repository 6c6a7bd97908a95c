"""Images as arrays, and the grids they lie on: filters, interpolation, MTF, Wald's protocol. No files, no networks."""
