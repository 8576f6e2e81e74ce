"""Tools that are asked instead of calling: one pure file per tool, and one loop for all of them."""
