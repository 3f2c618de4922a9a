"""Training of the draft head that the package ships; not part of the wheel.  ``python -m training.eagle --help``."""
