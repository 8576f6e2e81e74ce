"""Business reviews: when they are due, what they show, and whether they were held."""
