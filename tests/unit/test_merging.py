"""Facts of merged accounts in parcels that a record can hold."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from shared.merging import MOST_BYTES, parcels


@given(st.lists(st.text(max_size=40), max_size=60), st.integers(20, 400))
def test_parcels_keep_every_row_in_its_order_and_stay_small(rows: list[str], most: int) -> None:
    rows = [json.dumps({"text": row}, ensure_ascii=False) for row in rows]
    portions = list(parcels(rows, most))
    assert [row for portion in portions for row in portion] == rows
    for portion in portions:
        assert len(portion) == 1 or len(json.dumps(portion, ensure_ascii=False).encode()) <= most + 2 + len(portion)


def test_a_parcel_of_the_shipped_size_stays_below_900_kb() -> None:
    rows = [json.dumps({"text": '"\\' * 500})] * 3_000
    assert all(len(json.dumps(portion)) < 900_000 for portion in parcels(rows, MOST_BYTES))
