"""Figures 4, 5, 7, 10 and 11 of the paper: what purification does, and the search that it is compared with."""
