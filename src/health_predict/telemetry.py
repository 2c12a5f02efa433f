"""Telemetry of the libraries: none. Imported before any of them, by whatever imports this package.

Several libraries report to their makers, or give the machine an identity of its own, unless they are told not to. What
runs in a hospital reports to nobody, so these variables are set whatever the environment says: a stray one cannot
switch a report on. docs/security.md says what each does, and what covers the programs that are not ours.
"""

import os

OFF = {
    "DO_NOT_TRACK": "1",  # Evidently, and others that follow consoledonottrack.com
    "ITERATIVE_DO_NOT_TRACK": "1",  # Evidently's client
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime; otherwise also a device id below ~/.cache/Microsoft
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",  # where Ray would report that reporting is off
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "false",
    "SCARF_ANALYTICS": "false",  # Airflow's client
    "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
}

os.environ.update(OFF)
