from pathlib import Path

import pytest


@pytest.fixture
def shared_data():
    """Real comparisons that lie beside some checkouts; the tests that read them are skipped elsewhere."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared data is not beside this checkout")
    return folder
