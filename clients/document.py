"""Write clients/openapi.json, from which the TypeScript types are made.

python clients/document.py && npm --prefix clients/typescript run build
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from nextedge import Recommender
from nextedge.api.app import create_app

HERE = Path(__file__).parent


def document() -> str:
    """The service's OpenAPI document as it stands in the file; it is the same for every tenant."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "connections.csv").write_text("src,dst\n1,2\n")
        made = create_app(Recommender(folder)).openapi()
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (HERE / "openapi.json").write_text(document(), encoding="utf-8")
