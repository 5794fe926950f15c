from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from clients.learning.state import as_arrays, as_tensors, pack_state, unpack_state


def test_a_state_comes_back_as_it_was() -> None:
    state = {"model": {"weight": torch.arange(6.0).reshape(2, 3)}, "round": 3, "names": ["a", "b"], "nothing": None}
    found = unpack_state(pack_state(state))
    assert torch.equal(found["model"]["weight"], state["model"]["weight"])  # type: ignore[index]
    assert {name: found[name] for name in ("round", "names", "nothing")} == {
        "round": 3,
        "names": ["a", "b"],
        "nothing": None,
    }


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_a_state_with_one_wrong_byte_or_without_its_end_is_refused(share: float) -> None:
    content = pack_state({"weight": torch.linspace(0.0, 1.0, 4096)})
    place = int(share * len(content))
    with pytest.raises(Exception):  # noqa: B017  whatever torch and zipfile raise at the byte that is wrong
        unpack_state(content[:place])
    damaged = content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]
    with pytest.raises(Exception):  # noqa: B017
        unpack_state(damaged)


def test_a_file_of_something_else_is_no_state() -> None:
    import io

    buffer = io.BytesIO()
    torch.save([1, 2], buffer)
    with pytest.raises(ValueError, match="not a state"):
        unpack_state(buffer.getvalue())


def test_tensors_of_arrays_are_copies_and_give_them_back() -> None:
    arrays: dict[str, np.ndarray[Any, Any]] = {"ids": np.arange(3), "rows": np.ones((3, 2), np.uint8)}
    tensors = as_tensors(arrays)
    arrays["ids"][0] = 9
    found = as_arrays(tensors)
    np.testing.assert_array_equal(found["ids"], [0, 1, 2])
    assert found["rows"].dtype == np.uint8
