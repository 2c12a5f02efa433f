"""A Ray cluster that does not start is told, without what its address holds."""

import pytest
import ray

from health_predict.adapters.ray_cluster import cluster
from health_predict.errors import ServiceError


@pytest.mark.parametrize(("address", "place"), [(None, "on this machine"), ("auto://ana:s3cret@x", "auto://***@x")])
def test_a_cluster_that_does_not_start_is_told(monkeypatch, address, place):
    def overloaded(*_: object, **__: object) -> None:
        raise Exception("The current node timed out during startup.\nMore of it")  # as Ray does, after half a minute

    monkeypatch.setattr(ray, "init", overloaded)
    with pytest.raises(ServiceError, match="timed out during startup") as told, cluster(address):
        pass
    assert place in str(told.value)
    assert "More of it" not in str(told.value)
    assert "s3cret" not in str(told.value)
