"""What the builder for serveConfigV2 makes of its arguments, without a cluster."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from router.cli import command_line
from router.engines.ray.application import Flags, NotDeployed, build
from router.engines.ray.scaling import by_requests

FLEET = """
apiVersion: pointsman/v1
kind: Fleet
backends:
  - {name: one, tier: cloud, region: us, protocol: fake, clearance: restricted, models: {chat: {task: chat}}}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "fleet.yaml").write_text(FLEET)
    return str(tmp_path)


def deployments(args):
    bound = build(args)._bound_deployment
    return {bound.name: bound}


def test_arguments_are_the_flags_of_serve(folder):
    (router,) = deployments({
        "paths": [folder], "replicas": 3, "drain": 20, "drain_delay": "7.5", "skip_tests": True, "watch": None,
        "allow_anonymous": False, "revision": 12,
    }).values()  # fmt: skip
    assert (router.name, router.num_replicas) == ("router", 3)
    assert router._deployment_config.graceful_shutdown_timeout_s == 7.5 + 20 + 5
    plan = router.init_args[0]
    assert isinstance(plan, Flags)
    given = command_line().parse_args(["serve", *plan.flags])
    assert (given.paths, given.drain, given.drain_delay, given.skip_tests) == ([folder], 20, 7.5, True)
    assert "POINTSMAN" not in repr(plan), "nothing of the environment"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({}, "args: paths is a list of the files and folders that hold the configuration"),
        ({"paths": "/etc/pointsman"}, "args: paths is a list of the files and folders that hold"),
        ({"paths": ["conf"]}, "args: paths holds conf, which each process would look for elsewhere: begin with /"),
        ({"paths": ["FOLDER"], "admin-host": "::1"}, "args: admin-host is unknown: did you mean admin_host?"),
        ({"paths": ["FOLDER"], "engine": "local"}, "args: engine cannot be set here: an application of Ray"),
        ({"paths": ["FOLDER"], "port": "eighty"}, "args: --port: 'eighty' is not a port from 1 to 65535"),
        ({"paths": ["FOLDER"], "port": [8000]}, "args: port is one value, a text or a number"),
        ({"paths": ["FOLDER"], "skip_tests": "yes"}, "args: skip_tests is true or false"),
        ({"paths": ["FOLDER"], "port": 8001}, "args: --port and --admin-port must differ"),
        ({"paths": ["FOLDER"], "host": "0.0.0.0"}, "no document of kind Tenants, and the router listens on 0.0.0.0"),
        ({"paths": ["FOLDER"], "ledger": "/data/ledger"}, "ledger: the file /data/ledger would be one node's"),
        ({"paths": ["FOLDER"], "ledger_env": "NO_SUCH"}, "args: the environment variable NO_SUCH holds no ledger"),
        ({"paths": ["FOLDER"], "admin_host": "0.0.0.0"}, "args: the admin API on 0.0.0.0 needs a token"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_them_is_told(folder, args, told):
    if args.get("paths") == ["FOLDER"]:
        args["paths"] = [folder]
    with pytest.raises(NotDeployed) as raised:
        build(args)
    assert told in str(raised.value)


def test_a_broken_configuration_is_told_with_its_place(folder, tmp_path):
    (tmp_path / "fleet.yaml").write_text(FLEET.replace("tier: cloud", "tier: clood"))
    with pytest.raises(NotDeployed, match=r"fleet.yaml:5:23: error: .*clood(.|\n)*1 problem\(s\) in the configuration"):
        build({"paths": [folder]})


@pytest.mark.parametrize(
    ("told", "replicas", "wanted"),
    [({}, 3, 3), ({"a": 40, "b": 20}, 2, 6), ({"a": 30}, 2, 6), ({"a": 0, "b": 0}, 2, 1), ({"a": 900.0}, 2, 8)],
)
def test_replicas_go_by_the_requests_that_they_tell_of(told, replicas, wanted):
    context = SimpleNamespace(
        aggregated_metrics={"in_progress": told},
        target_num_replicas=replicas,
        current_num_replicas=replicas,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=8,
        config=SimpleNamespace(get_target_ongoing_requests=lambda: 10),
    )
    assert by_requests(context)[0] == wanted
