from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.passed_classes import name_of_class, plain_values
from strategies.registry import find_class
from strategies.rules.weighted import Mean

SOURCE = """
import numpy as np
WEIGHT = {weight}

def scale():
    return WEIGHT

class Base:
    pass

class Rule(Base):
    def __init__(self, power=2):
        self.power = power

    def aggregate(self, contributions):
        return scale() ** self.power
"""


def defined(source: str = SOURCE, weight: object = 3, name: str = "Rule") -> type[Any]:
    """A class as a cell of a notebook defines it."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(source.format(weight=weight), namespace)
    found: type[Any] = namespace[name]
    return found


def test_a_class_of_a_module_is_named(tmp_path: Path) -> None:
    assert name_of_class(Mean, tmp_path)[0] == "strategies.rules.weighted:Mean"
    assert list(tmp_path.iterdir()) == []


def test_a_class_of_a_cell_is_found_in_another_process_with_all_that_it_refers_to(tmp_path: Path) -> None:
    name, folder = name_of_class(defined(), tmp_path)
    found = find_class(name, {}, key="key", folders=(folder,))
    assert found().aggregate(None) == 9
    code = (
        "from pathlib import Path; from strategies.registry import find_class;"
        f"print(find_class({name!r}, {{}}, key='key', folders=(Path({str(folder)!r}),))(power=3).aggregate(None))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "27"


def test_the_same_class_has_the_same_name_wherever_it_is_defined_and_another_has_another(tmp_path: Path) -> None:
    name, _ = name_of_class(defined(), tmp_path)
    assert name_of_class(defined("\n\n" + SOURCE), tmp_path)[0] == name
    others = [
        defined(weight=4),
        defined(weight="np.ones(3)"),
        defined(SOURCE.replace("power=2", "power=5")),
        defined(SOURCE.replace("scale() **", "scale() *")),
        defined(SOURCE.replace("    pass", "    rate = 1")),
    ]
    names = [name_of_class(one, tmp_path)[0] for one in others]
    assert len({name, *names}) == 6


def test_a_class_that_holds_what_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    cls = defined()
    cls.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"^Rule: cannot be written down for other processes .*lock"):
        name_of_class(cls, tmp_path)
    assert not (tmp_path / ".classes").exists()


def test_values_of_python_become_those_of_a_yaml(tmp_path: Path) -> None:
    folders: list[Path] = []
    given = {"a": (np.int64(3), np.float32(0.5)), "b": {"c": Path("/x"), "d": Mean}, "e": None}
    assert plain_values(given, tmp_path, folders) == {
        "a": [3, 0.5],
        "b": {"c": "/x", "d": "strategies.rules.weighted:Mean"},
        "e": None,
    }
    assert [(folder / "strategies").is_dir() for folder in folders] == [True]
    assert pickle.loads(pickle.dumps(folders)) == folders
