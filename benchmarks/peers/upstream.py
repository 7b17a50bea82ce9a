"""What every peer sends to: nginx that answers a chat completion at once."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.peers.tree import Process

MODEL = "chat"
ANSWER = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": MODEL,
    "choices": [{
        "index": 0, "finish_reason": "stop",
        "message": {"role": "assistant", "content": "The forecast for tomorrow is cloudy, with a light wind."},
    }],
    "usage": {"prompt_tokens": 120, "completion_tokens": 12, "total_tokens": 132},
}  # fmt: skip
BODY = {
    "model": MODEL,
    "messages": [
        {"role": "system", "content": "You are a helpful assistant. Answer briefly, and in the user's own language."},
        {
            "role": "user",
            "content": "Summarise the attached minutes in three sentences: the team agreed to move the review to the "
            "last week of the month, to send the draft to everybody two days before, and to keep the meeting short. "
            "次回の会議は来月の第一週に開き、議題は前日までに共有することになりました。"
            "What should be prepared, and who is told?",
        },
    ],
    "max_tokens": 64,
    "temperature": 0.2,
}
"""About 600 bytes, English and Japanese, with nothing sensitive in it."""

_NGINX = """
worker_processes 1;
daemon off;
pid {folder}/{name}.pid;
error_log {folder}/{name}.log crit;
worker_rlimit_nofile 65536;
events {{ worker_connections 32768; }}
http {{
  access_log off;
  client_body_temp_path {folder}/{name}-body; proxy_temp_path {folder}/{name}-proxy;
  fastcgi_temp_path {folder}/{name}-f; uwsgi_temp_path {folder}/{name}-u; scgi_temp_path {folder}/{name}-s;
  client_max_body_size 64m;
  client_body_buffer_size 64k;
  keepalive_requests 100000000;
  keepalive_timeout 300s;
  {rest}
}}
"""
_ANSWERING = """
  server {{
    listen 127.0.0.1:{port} backlog=4096 reuseport;
    default_type application/json;
    location = /v1/chat/completions {{ return 200 '{answer}'; }}
    location = /v1/models {{ return 200 '{{"object":"list","data":[{{"id":"chat","object":"model"}}]}}'; }}
    location = /get_model_info {{ return 200 '{{"model_path":"chat"}}'; }}
    location = /get_server_info {{ return 200 '{{}}'; }}
    location = /server_info {{ return 200 '{{}}'; }}
    location / {{ return 200 '{{}}'; }}
  }}
"""
_PROXYING = """
  upstream answering {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://answering; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering {buffering};
    }}
  }}
"""


def write_body(folder: Path) -> Path:
    file = folder / "body.json"
    file.write_text(json.dumps(BODY, ensure_ascii=False))
    return file


def _nginx(folder: Path, name: str, rest: str, port: int) -> Process:
    config = folder / f"{name}.conf"
    config.write_text(_NGINX.format(folder=folder, name=name, rest=rest))
    return Process(["nginx", "-c", str(config), "-e", str(folder / f"{name}.log")],
                   f"http://127.0.0.1:{port}/health", folder / f"{name}.out")  # fmt: skip


def answering(folder: Path, port: int, name: str = "upstream") -> Process:
    return _nginx(folder, name, _ANSWERING.format(port=port, answer=json.dumps(ANSWER)), port)


def proxying(folder: Path, port: int, upstream: int, *, buffering: bool = True) -> Process:
    """nginx as a peer."""
    rest = _PROXYING.format(port=port, upstream=upstream, buffering="on" if buffering else "off")
    return _nginx(folder, "nginx", rest, port)
