"""Risk of readmission within 30 days for patients with diabetes, from data to a monitored service."""

from importlib.metadata import version

from health_predict import telemetry as telemetry  # first of all: libraries look when they are imported

__version__ = version("health-predict")
