"""Look again, measure, accept or refuse."""
