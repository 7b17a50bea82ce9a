"""What answers cost, and what they might have cost elsewhere."""

from __future__ import annotations

from dataclasses import replace

from conftest import THREE_TIERS, compile_text, idle
from hypothesis import given
from hypothesis import strategies as st

from policies.accounts import baseline_usd, competing

POLICY = compile_text(THREE_TIERS)
TARGET = POLICY.targets[0]
prices = st.sampled_from([0.0, 1e-6, 2e-6, 1e-3])
clouds = st.lists(
    st.builds(
        lambda request, tokens_in, tokens_out, second: replace(
            TARGET,
            usd_per_request=request,
            usd_per_token_in=tokens_in,
            usd_per_token_out=tokens_out,
            usd_per_second=second,
        ),
        prices, prices, prices, st.sampled_from([0.0, 0.01]),
    ),
    max_size=6,
)  # fmt: skip


@given(clouds, st.integers(0, 5000), st.integers(0, 5000))
def test_who_never_asks_less_than_another_is_not_asked_and_the_cheapest_stays_the_cheapest(
    targets, tokens_in, tokens_out
):
    kept = competing(targets)
    usual = baseline_usd(targets, tokens_in, tokens_out, idle(POLICY))
    assert baseline_usd(kept, tokens_in, tokens_out, idle(POLICY)) == usual
    assert bool(kept) == bool(targets)
    assert competing(kept) == kept


def test_of_equals_the_first_is_asked():
    dearer = replace(TARGET, usd_per_token_in=TARGET.usd_per_token_in + 1)
    assert competing([TARGET, replace(TARGET, index=7), dearer]) == (TARGET,)
    assert competing([dearer, TARGET]) == (TARGET,)
