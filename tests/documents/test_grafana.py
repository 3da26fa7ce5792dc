"""The dashboard that `hub print grafana` prints is one in Grafana's own types, its options and its fields too.

What it asks is answered by a real Prometheus, in test_monitoring.py.
"""

from pathlib import Path

import pytest
from documents.test_types import FLAGS
from documents.test_valid import needs_node, run
from prints import printed

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("", ""),
        ('"expr":', '"expression":'),
        ('"type": "timeseries"', '"type": "graph"'),
        ('"drawStyle": "line"', '"drawStyle": "lines"'),
        ('"colorMode": "value"', '"colourMode": "value"'),
        ('"refresh": 2', '"refresh": 9'),
    ],
)
async def test_it_is_one_in_grafanas_types(tmp_path: Path, right: str, wrong: str) -> None:
    """So one wrong word is found."""
    dashboard = printed("grafana")
    assert right in dashboard
    node, compiler = needs_node("typescript")
    schema = Path(needs_node("@grafana/schema")[1])
    (modules,) = [path for path in schema.parents if path.name == "node_modules"]
    (tmp_path / "node_modules").symlink_to(modules)
    program = tmp_path / "dashboard.ts"
    program.write_text(f"{(HERE / 'dashboard.ts').read_text('utf-8')}{dashboard.replace(right, wrong, 1)};\n")
    status, said = await run(tmp_path, node, compiler, *FLAGS, "--skipLibCheck", program)
    assert bool(status) is bool(wrong), said
