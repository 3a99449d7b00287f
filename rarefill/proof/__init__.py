"""Does the synthetic data help? Splits, arms, step-matched trainings, intervals, and a verdict in words.

`study.Study` is what `rarefill evaluate` leaves behind; everything that shows a study reads that.
"""
