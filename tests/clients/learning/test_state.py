from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from clients.learning.state import ALIGNMENT, as_arrays, as_tensors, pack_state, room_for, unpack_state


def test_a_state_comes_back_as_it_was() -> None:
    state = {"model": {"weight": torch.arange(6.0).reshape(2, 3)}, "round": 3, "names": ["a", "b"], "nothing": None}
    found = unpack_state(pack_state(state))
    assert torch.equal(found["model"]["weight"], state["model"]["weight"])  # type: ignore[index]
    assert {name: found[name] for name in ("round", "names", "nothing")} == {
        "round": 3,
        "names": ["a", "b"],
        "nothing": None,
    }


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(1.5),
        torch.zeros(0, 3),
        torch.tensor([True, False]),
        torch.arange(12.0).view(3, 4).t(),
        torch.ones(3).expand(2, 3),
        torch.arange(5)[2:3].as_strided((1,), (0,)),
        torch.linspace(0, 1, 7).to(torch.bfloat16),
        torch.nn.Parameter(torch.arange(3.0)),
    ],
    ids=["number", "empty", "bool", "transposed", "expanded", "one row", "bfloat16", "parameter"],
)
def test_every_kind_of_tensor_comes_back_beside_another(tensor: torch.Tensor) -> None:
    beside = torch.arange(3)
    found = unpack_state(pack_state({"one": tensor, "beside": beside}))
    assert torch.equal(found["one"], tensor) and found["one"].dtype == tensor.dtype
    assert torch.equal(found["beside"], beside)


def test_plain_values_come_back_with_their_types() -> None:
    state = {"pair": (1, 2.5), 7: [float("inf"), True, "é"], "empty": {}, "key": b"\x00\xff", "tensor": {"mapping": 1}}
    assert repr(unpack_state(pack_state(state))) == repr(state)


def test_what_comes_back_can_be_written_to_without_touching_the_content() -> None:
    content = pack_state({"weight": torch.zeros(4)})
    unpack_state(content)["weight"] += 1
    assert torch.equal(unpack_state(content)["weight"], torch.zeros(4))


def test_tensors_are_parts_of_a_content_that_may_be_written_to() -> None:
    content = pack_state({"weight": torch.arange(4.0), "ids": torch.arange(3)})
    room = room_for(len(content))
    room[:] = content
    found = unpack_state(room)
    assert torch.equal(found["weight"], torch.arange(4.0)) and torch.equal(found["ids"], torch.arange(3))
    assert found["weight"].data_ptr() % ALIGNMENT == found["ids"].data_ptr() % ALIGNMENT == 0
    found["ids"] += 1
    assert bytes(room[-ALIGNMENT:]) == torch.arange(1, 4).numpy().tobytes() + bytes(ALIGNMENT - 24)


def test_equal_states_are_equal_bytes() -> None:
    one, other = ({"weight": torch.arange(9.0), "round": 3} for _ in range(2))
    assert pack_state(one) == pack_state(other)


@pytest.mark.parametrize("value", [{1, 2}, np.zeros(2), print, torch.eye(2).to_sparse()])
def test_what_a_state_cannot_hold_is_refused_when_it_is_written(value: Any) -> None:
    with pytest.raises(TypeError, match="a state holds"):
        pack_state({"model": value})


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_a_state_with_one_wrong_byte_or_without_its_end_is_refused(share: float) -> None:
    content = pack_state({"weight": torch.linspace(0.0, 1.0, 4096)})
    place = int(share * len(content))
    with pytest.raises(ValueError, match="checksum"):
        unpack_state(content[:place])
    damaged = content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]
    with pytest.raises(ValueError, match="checksum"):
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
