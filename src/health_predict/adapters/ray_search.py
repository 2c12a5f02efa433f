"""Hyperparameter search of one family: Ray Tune runs the trials, Optuna proposes them, ASHA stops the poor ones.

Families run in parallel, the trials of one family one at a time: Optuna then sees results, and ASHA rungs, in the
same order every time, so that one seed gives one result on any number of machines.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search.optuna import OptunaSearch

from health_predict.params import Family, SearchParams
from health_predict.training.candidate import Fold, Range
from health_predict.training.candidates import CANDIDATES
from health_predict.training.search import METRIC, Search, Trial


def search(
    folds: Mapping[Family, Fold], params: SearchParams, on_trial: Callable[[Family, Trial], None]
) -> Iterator[Search]:
    """Search every family of `folds` on the connected Ray cluster; yields each family's search as it ends.

    `on_trial` is called for every ended trial, from the thread that ran it. Raises RuntimeError when a trial fails.
    """
    # Tune's registry is not thread-safe, so all trainables are registered here, before the threads start.
    for family, fold in folds.items():
        tune.register_trainable(family, _trainable(family, ray.put(fold), params))
    workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
    with ThreadPoolExecutor(min(workers, len(folds))) as pool:
        searches = [
            pool.submit(_search_family, family, len(folds[family].y_train), params, on_trial)
            for family in sorted(folds, key=lambda family: -CANDIDATES[family].seconds)  # the slowest first
        ]
        for running in searches:
            yield running.result()


def _trainable(family: Family, fold: ray.ObjectRef, params: SearchParams) -> Callable[[dict[str, Any]], None]:
    def trainable(config: dict[str, Any]) -> None:
        def report(_step: int, auroc: float) -> None:
            tune.report({METRIC: float(auroc)})

        CANDIDATES[family].fit(config, ray.get(fold), params.reports, params.seed, report)

    return trainable


def _search_family(
    family: Family, rows: int, params: SearchParams, on_trial: Callable[[Family, Trial], None]
) -> Search:
    candidate = CANDIDATES[family]
    listener = _Listener(family, params.reports, on_trial)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="health-predict-tune-") as scratch:
        tuner = tune.Tuner(
            family,
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                num_samples=params.trials,
                max_concurrent_trials=1,
                scheduler=AsyncHyperBandScheduler(
                    time_attr="training_iteration",
                    max_t=params.reports,
                    grace_period=1,
                    reduction_factor=params.reduction_factor,
                ),
                search_alg=OptunaSearch(
                    {name: _distribution(bounds) for name, bounds in candidate.space.items()},
                    sampler=optuna.samplers.TPESampler(seed=params.seed, n_startup_trials=params.random_trials),
                    points_to_evaluate=[dict(candidate.default(rows))],
                    metric=METRIC,
                    mode="max",
                ),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=scratch, name=family, callbacks=[listener], stop=_Budget(params), verbose=0
            ),
        )
        results = tuner.fit()
    if results.errors:
        raise RuntimeError(f"a trial of {family} failed: {results.errors[0]}") from results.errors[0]
    return Search(family, tuple(listener.trials))


class _Budget(tune.Stopper):  # type: ignore[misc]
    """Ends the search of a family when its time is up, but not before one trial has trained all its steps."""

    def __init__(self, params: SearchParams) -> None:
        self._end = None if params.minutes is None else time.monotonic() + 60 * params.minutes
        self._steps = params.reports
        self._full = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self._full = self._full or result["training_iteration"] >= self._steps
        return False

    def stop_all(self) -> bool:
        return self._end is not None and self._full and time.monotonic() > self._end


class _Listener(tune.Callback):  # type: ignore[misc]
    """Collects the trials of one family as they end."""

    def __init__(self, family: Family, steps: int, on_trial: Callable[[Family, Trial], None]) -> None:
        self.trials: list[Trial] = []
        self._auroc: dict[str, list[float]] = {}
        self._family, self._steps, self._on_trial = family, steps, on_trial

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **_: Any) -> None:
        self._auroc.setdefault(trial.trial_id, []).append(result[METRIC])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        auroc = tuple(self._auroc.get(trial.trial_id, ()))
        if not auroc:  # the time was up before its first step
            return
        seconds = trial.last_result["time_total_s"]
        ended = Trial(len(self.trials), trial.config, auroc, len(auroc) < self._steps, seconds)
        self.trials.append(ended)
        self._on_trial(self._family, ended)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune stores its callbacks for a resumption that is not used here


def _distribution(bounds: Range) -> optuna.distributions.BaseDistribution:
    if bounds.whole:
        return optuna.distributions.IntDistribution(int(bounds.low), int(bounds.high), log=bounds.log)
    return optuna.distributions.FloatDistribution(bounds.low, bounds.high, log=bounds.log)
