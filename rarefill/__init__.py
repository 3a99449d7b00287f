"""rarefill: label-aware synthetic data for object detection.

Importing this package loads neither torch nor cv2; the modules that need them are imported by name:

    from rarefill import dataset, pipeline, recipe
"""

__version__ = "0.1.0"
