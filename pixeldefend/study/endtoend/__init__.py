"""Section 4.4 of the paper: attacks on classifier and PixelDefend together."""
