"""What compiled loops keep on the disk."""

import os
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

from pansharpen_cli.system import compiled

LOOP = """
from pansharpen_cli.system.compiled import compiled

@compiled
def twice(x):
    return 2 * x
"""


def test_machine_code_is_kept_until_a_source_beside_it_changes(tmp_path):
    """What a loop calls is in its machine code, too."""
    loop, neighbour = tmp_path / "loop.py", tmp_path / "neighbour.py"
    loop.write_text(LOOP)
    neighbour.write_text("")

    def kept() -> bool:
        """Whether another process finds the machine code."""
        compiled._stamp.cache_clear()
        twice = _module(loop).twice
        assert twice(21) == 42
        return bool(twice.stats.cache_hits)

    assert not kept()
    assert kept()
    neighbour.write_text("STEP = 2")
    assert not kept()
    assert kept()
    os.utime(neighbour, (2e9, 2e9))
    assert not kept()


def _module(path) -> ModuleType:
    spec = spec_from_file_location("loop", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
