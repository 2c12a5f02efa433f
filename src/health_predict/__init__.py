"""Risk of readmission within 30 days for patients with diabetes, from data to a monitored service."""

from importlib.metadata import version

__version__ = version("health-predict")
