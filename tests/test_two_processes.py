"""Every family learns on several processes, with LoRA and in full."""

from pathlib import Path

import pytest
import tiny_families
import tiny_pixart_sana
from processes import finish, said, start


pytestmark = pytest.mark.slow


def test_every_family_learns_the_same_on_two_processes(tmp_path):
    codes = finish(start(2, [], tmp_path, Path(__file__).parent / "two_processes.py"), timeout=600)
    assert codes == [0, 0], said(tmp_path)
    first, second = (
        [line for line in (tmp_path / f"output-{rank}.txt").read_text().splitlines() if line.startswith("learnt")]
        for rank in range(2)
    )
    assert first == second  # the same weights, to the last digits
    assert len(first) == 2 * len(tiny_families.MAKERS) - len(tiny_pixart_sana.NO_LORA)
