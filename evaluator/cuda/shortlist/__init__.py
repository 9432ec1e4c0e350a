"""Times a shortlist on whatever card is there, with torch and triton alone: see ``command``."""
