"""`rarefill vary`: versions of whole images, with their labels checked and kept."""
