"""TRACE: imitation policies with a signature-addressed slot memory."""

__version__ = "0.1.0"
