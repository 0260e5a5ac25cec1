"""Networks with side exits: trunks, heads, and the one class that joins them."""
