"""A real Prometheus scrapes a real router under load: every query of every panel, and every rule, has something to say.

`make observe` does the same with the demo's real models, for a minute.
"""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.prometheus import checks
from tests.prometheus.expressions import panel_queries, with_values
from tests.prometheus.fleet import Fleet
from tests.prometheus.server import MISSING, Prometheus

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

LOAD_S = 22
AT_REST = {
    # Of this moment, or of this machine.
    "How many records wait to be written?", "How full are the queues?", "How many backends are out?",
    "How much do backends draw while they wait, and this machine in all? · B",
    "job_instance_backend:pointsman_queue_saturation:ratio",
    "How do the budgets stand? · D",  # one process holds no leases
}  # fmt: skip
"""What may be 0 all the time here; everything else must have moved."""
BEFORE_ANSWERS = {
    # There is no latency of nothing, and no cost of an answer.
    "How are answer times spread?", "How fast do tokens come?", "How long do answers take?",
    "How much CPU time does a request take here?",
    "How long do backends take?", "How long do callers wait, by backend?", "How long do their answers take?",
    "How long does deciding take?", "How much carbon for a thousand answers? (modelled)",
    "How much of that is the router's own?", "How old is that latency?", "What does a thousand answers cost?",
    "What does an answer of own hardware cost?", "What latency do decisions go by?", "When does a stream begin?",
    # Where requests went, of which there are none.
    "Which rules send it there?", "Which rules speak?", "Which tiers answer?", "Which way did requests take?",
}  # fmt: skip
"""Panels that are empty until something was asked. All others, and so those of rare events, show 0 from the start."""


@pytest.fixture(scope="module")
def live(tmp_path_factory, onnx_models):
    """(Prometheus, router, what panels said before the first request), after so much load that all rates have a past.
    The load goes on."""
    folder = tmp_path_factory.mktemp("live")
    with Fleet(folder / "fleet", onnx_models) as fleet, Prometheus(folder / "prometheus", fleet.admin_port) as server:
        deadline = time.monotonic() + 20
        while not server.now("count_over_time(pointsman_build_info[20s]) >= 3"):  # what is 0 at first is seen at 0
            assert time.monotonic() < deadline, "Prometheus cannot scrape the router"
            time.sleep(0.2)
        idle = checks.ask_all(server, LOAD_S)
        fleet.load()
        time.sleep(LOAD_S / 2)
        fleet.reload()
        time.sleep(LOAD_S / 2)
        fleet.healthy()
        assert fleet.asked > 500
        yield server, fleet, idle


@pytest.mark.timeout(120)
def test_every_panel_has_something_sane_to_say(live):
    server, fleet, _ = live
    found = checks.problems(checks.ask_all(server, LOAD_S), AT_REST)
    assert not found, "\n".join(found)
    fleet.healthy()


def test_every_recording_rule_too(live):
    server, _, _ = live
    found = checks.problems(checks.ask_rules(server), AT_REST)
    assert not found, "\n".join(found)
    assert checks.check_rules(server) == []


def test_one_router_can_be_chosen(live):
    """Of all in Prometheus; then the answers are the same, as there is only one."""
    server, _, _ = live
    answers = checks.ask_all(server, LOAD_S, job="pointsman", instance=checks.escaped(server.target))
    found = checks.problems(answers, AT_REST)
    assert not found, "\n".join(found)


def test_every_variable_has_something_to_choose(live):
    server, _, _ = live
    assert checks.check_variables(server) == []


def test_panels_show_0_and_not_no_data_before_the_first_request(live):
    """But for those that measure answers, and those that tell answers apart by what only a request has."""
    _, _, idle = live
    silent = {one.panel for one in idle if not one.series and not one.waits}
    assert silent == BEFORE_ANSWERS, "\n".join(sorted(silent))


def test_what_is_paid_by_the_hour_counts_while_there_is_a_router(live):
    """At 1.51 USD an hour, and for a few minutes at most."""
    server, _, _ = live
    (spent,) = [one for one in panel_queries() if one.panel == "What was spent?"]
    answers = "sum(increase(pointsman_marginal_cost_usd_total[$__range]))"
    for hours, least_usd in (1, 0.005), (240, 0):
        ((_, (usd,)),) = server.now(with_values(f"{spent.expr} - {answers}", hours * 3600, 60))
        assert least_usd <= usd < 0.3


def test_what_promtool_says_of_the_metrics(live):
    _, fleet, _ = live
    text = fleet.admin("GET", "/metrics")[1]
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    said = [line for line in (done.stdout + done.stderr).decode().splitlines() if line]
    assert b"pointsman_requests_total" in text
    assert (done.returncode, said) == (0, [])
