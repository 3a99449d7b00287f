"""A run as one HTML file for people: what was asked, what was made, and what is known of it."""
