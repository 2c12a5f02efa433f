"""What the service runs is what was trained: ONNX and the trained pipeline agree for every family."""

import os
from pathlib import Path
from typing import get_args

import numpy as np
import onnxruntime
import pytest

import factories
from health_predict.data.cohort import LabelledEncounters, label, select_cohort
from health_predict.data.decode import decode
from health_predict.data.splits import split
from health_predict.data.validation import validate
from health_predict.features.encounters import columns, engineer
from health_predict.io.download import csv_of
from health_predict.params import BundleParams, Family, PreprocessorParams, SearchParams, SplitParams, ValidationParams
from health_predict.training.candidates import CANDIDATES
from health_predict.training.export import to_onnx
from health_predict.training.fit import Prepared, fit, prepare
