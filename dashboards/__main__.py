"""`make dashboards`: writes configs/grafana/*.json."""

from __future__ import annotations

from dashboards.files import FOLDER, texts

if __name__ == "__main__":
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
