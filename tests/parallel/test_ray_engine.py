"""The same jobs on a real Ray cluster of two workers."""

import os
import pickle
import sys
from types import SimpleNamespace

import pytest
import torch
from jaxtyping import TypeCheckError

from conftest import make_net
from engine_examples import (
    Factor,
    as_it_is,
    die,
    gone,
    gpus_seen,
    logits_of,
    logits_unless_first,
    multiply,
    take_model,
    wait_until,
)
from torchxnn.errors import DataError, WorkerError, WorkerWarning, XNNError
from torchxnn.parallel.config import EngineConfig
from torchxnn.parallel.ray_engine import RayEngine, _Actors
from torchxnn.parallel.workers import JobRunner, work_through


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two workers, which the engines find because this process is connected.

    It counts two GPUs, which nobody uses.
    """
    ray = pytest.importorskip("ray")
    RayEngine()  # tells Ray to be quiet
    ray.init(
        "local",
        num_cpus=2,
        num_gpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield ray
    ray.shutdown()


def test_engines_by_name():
    pytest.importorskip("ray")
    assert EngineConfig().make().jobs == 1
    assert EngineConfig(jobs=3).make().jobs == 3
    ray = EngineConfig("ray", 2, "auto").make()
    assert isinstance(ray, RayEngine)
    assert (ray.workers, ray.address) == (2, "auto")
    with pytest.raises(XNNError, match="no address"):
        EngineConfig(address="auto").make()
    with pytest.raises((XNNError, TypeCheckError), match="spark"):
        EngineConfig("spark").make()


def test_without_ray_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(XNNError, match=r"pip install 'torchxnn\[ray\]'"):
        EngineConfig("ray").make()


def test_ray_is_told_not_to_send_anything():
    pytest.importorskip("ray")
    RayEngine()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.parametrize(("workers", "retries"), [(0, 3), (1, -1)])
def test_numbers_out_of_range(workers, retries):
    pytest.importorskip("ray")
    with pytest.raises(XNNError, match="workers must be at least 1"):
        RayEngine(workers=workers, retries=retries)


def test_nothing_to_do_starts_nothing():
    ray = pytest.importorskip("ray")
    assert list(RayEngine().run(Factor, (1,), multiply, [])) == []
    assert not ray.is_initialized()


@pytest.mark.slow
def test_killed_workers_are_replaced_and_nothing_is_lost_or_doubled(cluster, tmp_path):
    """Bit for bit as in this process, though one of the six jobs kills its worker."""
    net = make_net()
    expected = [logits_of(net, seed) for seed in range(6)]
    engine = RayEngine(workers=2)
    with pytest.warns(WorkerWarning, match=r"ActorDied.*its job 3 is done again"):
        found = list(engine.run(take_model, (net, tmp_path), logits_unless_first, range(6)))
    assert sorted(index for index, _ in found) == list(range(6))
    assert all(torch.equal(logits, expected[index]) for index, (_, logits) in found)
    assert len(list(tmp_path.glob("*.tried"))) == 1
    wait_until(lambda: all(gone(process) for _, (process, _) in found))
    assert cluster.is_initialized()  # it was there before


@pytest.mark.slow
def test_one_thread_errors_with_their_type_and_jobs_that_are_given_up(cluster):
    engine = RayEngine(workers=1, retries=0)
    results = engine.run(Factor, (3,), multiply, [1, "bad"])
    assert next(results) == (0, (3, 1))
    with pytest.raises(DataError, match="no such job") as caught:
        next(results)
    assert "in multiply" in caught.value.__notes__[0]
    with pytest.raises(WorkerError, match="job 'deadly' was given up"):
        list(engine.run(Factor, (1,), die, ["deadly"]))


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_every_actor_has_a_gpu_of_its_own_if_jobs_need_one(tmp_path):
    found = list(RayEngine().run(as_it_is, (tmp_path,), gpus_seen, range, gpu=True))
    assert sorted(seen for _, (seen, _) in found) == ["0", "1"]
    assert len({process for _, (_, process) in found}) == 2


@pytest.mark.slow
def test_a_cluster_without_gpus_is_an_error(cluster, monkeypatch):
    monkeypatch.setattr(cluster, "cluster_resources", lambda: {"CPU": 2.0})
    with pytest.raises(XNNError, match=r"the Ray cluster has no GPU, and every job needs one"):
        list(RayEngine().run(Factor, (1,), multiply, [1], gpu=True))


@pytest.mark.slow
def test_a_cluster_without_room_is_an_error(cluster):
    """Both processors are taken, so that no worker can start."""
    holder = cluster.remote(num_cpus=2)(JobRunner).remote()
    wait_until(lambda: cluster.available_resources().get("CPU", 0) == 0)
    with pytest.raises(WorkerError, match=r"no worker has started .* a worker needs 1 CPU"):
        list(RayEngine(workers=1, patience=1.0).run(Factor, (1,), multiply, [1]))
    cluster.kill(holder)


def lost_cluster():
    """What Ray answers where the first worker is lost with its job and no other has room."""
    answers = iter(["ready", "lost"])
    method = SimpleNamespace(remote=lambda *_: next(answers, "never"))
    actor = SimpleNamespace(start=method, run=method)

    def get(report):
        if report == "lost":
            raise ConnectionError("its machine was lost")
        return pickle.dumps((True, None))

    return SimpleNamespace(
        remote=lambda **_: lambda _: SimpleNamespace(remote=lambda: actor),
        wait=lambda reports, **_: ([each for each in reports if each != "never"][:1], []),
        get=get,
        kill=lambda _: None,
        available_resources=dict,
        exceptions=SimpleNamespace(RayError=ConnectionError),
    )


def test_where_the_last_worker_was_lost_and_none_can_start_the_run_ends():
    actors = _Actors(lost_cluster(), b"", patience=0.0)
    with (
        pytest.warns(WorkerWarning, match="its machine was lost.*its job 'a' is done again"),
        pytest.raises(WorkerError, match=r"no worker has started within 0 s; the cluster has {}"),
    ):
        list(work_through(actors, 1, ["a"], retries=3))


def test_no_cluster_at_the_address(monkeypatch):
    ray = pytest.importorskip("ray")

    def refuse(**_):
        raise ConnectionError("nobody there")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(XNNError, match="no Ray cluster answers at 'auto': nobody there"):
        list(RayEngine("auto").run(Factor, (1,), multiply, [1]))
    with pytest.raises(XNNError, match=r"no Ray cluster answers at '127\.0\.0\.1:1'"):
        list(RayEngine("127.0.0.1:1").run(Factor, (1,), multiply, [1]))
