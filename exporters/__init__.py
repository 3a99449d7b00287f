"""Write what others read."""
