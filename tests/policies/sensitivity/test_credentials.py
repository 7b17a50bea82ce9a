"""Credentials: what counts, and what only looks like it. `«` and `»` stand around what is found.

No string here is a credential of anything. Those with a provider's prefix are put together at run time, so that no
scanner of repositories takes them for one.
"""

from __future__ import annotations

import base64
import json

import pytest
from test_pii import places

from policies.sensitivity import credentials
from policies.sensitivity.scanner import RuleSet, Scanner

RULES = tuple(rule for rules in credentials.RULES.values() for rule in rules)
SCANNER = Scanner((RuleSet("secrets", 2, RULES),))

MIXED = "q7Rf2Kx9Lm4Zt8Wv3Bn6Yc1Hd5Gs0Jp"
HEX = "0123456789abcdef" * 4


def _jwt(header: dict[str, str]) -> str:
    parts = [json.dumps(header).encode(), b'{"sub":"1"}', b"signature"]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


KEYS = [
    "AKIA" + "IOSFODNN7QWERTYU", "ASIA" + "Y34FZKBOKMUTVV7A", "AIza" + "SyD4" + MIXED[:31], "GOCSPX-" + MIXED[:28],
    "ya29." + MIXED, "abc8Q~" + MIXED + "ab", "AccountKey=" + "Ab1+" * 21 + "ab==", "ghp_" + MIXED + "abcde",
    "github_pat_" + MIXED, "glpat-" + MIXED[:20], "xoxb-" + "123456789012-" + MIXED[:24], "xapp-1-" + MIXED,
    "hooks.slack.com/services/T0123ABCD/B0123ABCD/" + MIXED[:24], "sk_live_" + MIXED[:24], "rk_test_" + MIXED[:24],
    "whsec_" + MIXED, "sk-proj-" + MIXED, "sk-" + MIXED + MIXED[:16], "sk-ant-api03-" + MIXED,
    "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGh", "npm_" + MIXED + "abcde", "dop_v1_" + HEX,
    "SG." + MIXED[:22] + "." + MIXED + MIXED[:11], "SK" + HEX[:32], "hvs." + MIXED,
]  # fmt: skip

FOUND = {
    "CLOUD_KEY": [*(f"key «{key}» end" for key in KEYS), f"キーは«{KEYS[0]}»です", f'({{"k":"«{KEYS[7]}»"}})'],
    "PRIVATE_KEY": [
        f"x «-----BEGIN {kind}PRIVATE KEY-----\nMIIE{MIXED}\n-----END {kind}PRIVATE KEY-----» y"
        for kind in ("", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED ")
    ]
    + ["cut off: «-----BEGIN PRIVATE KEY-----»\nMIIE", "«-----BEGIN PGP PRIVATE KEY BLOCK-----\nx\n-----END PGP-----»"],
    "JWT": [f"jwt «{_jwt({'alg': 'HS256', 'typ': 'JWT'})}»", f"cookie=«{_jwt({'alg': 'none'})}»; path"],
    "URL_CREDENTIALS": [
        "«postgres://app:Zt8Wv3Bn@db.internal:5432»/x",
        "«https://user:p4ssw0rd!@example.com»/",
        "«redis://:s3cr3tpw@cache»",
        "接続先は«mysql://root:hunter22@127.0.0.1»です",
    ],
    "TOKEN": [
        "password: «hunter2»",
        'Password = "«Tr0ub4dor&3»"',
        "パスワードは«Sakura2024!»です",
        "パスワード：«ｓａｋｕｒａ２０２４»",
        "暗証番号は«1234»です",
        f"api_key={'«' + MIXED + '»'}",
        f"APIキー: «{MIXED}»",
        f"Authorization: Bearer «{MIXED}»",
        "aws_secret_access_key = «wJalrXUtnFEMI/K7MDENG+bPxRfiCYzzzzzzzKEY1»",
        f'"token": "«{MIXED}»"',
        f"client_secret: '«{MIXED}»'",
        "export DB_PASSWORD=«x9!kQ2mz»",
        "my password is «correct-horse-9»",
        f"トークン：「«{MIXED}»」",
        f"https://example.com/?token=«{MIXED}»&x=1",
    ],
}

NOT_FOUND = [
    "token_uri=_OAUTH2_TOKEN_ENDPOINT",
    "TOKEN_URI = \"https://oauth2.example.com/v4/token\"", "secrets: .client_secrets",
    "ECDSA_Sig_Value = rfc3279.ECDSA_Sig_Value", "cred.Blob = (LPVOID)password;", "token = rfc3279.Value_Of_It",
    "password: required", "password = get_password()", "password: ${DB_PASSWORD}", "password: ********",
    "password=<your password>", "the password is required to be long", "token: 1234567890", "max_tokens: 4096",
    "token = self.tokenizer.next", "api_key = os.environ['API_KEY']", "api_key: YOUR_API_KEY", "secret: null",
    "パスワードを忘れました", "パスワードは必須です", "暗証番号を入力してください", "トークン数は1024です",
    "secret santa party",
    "https://user:${PASSWORD}@example.com", "http://example.com:8080/a@b", "eyJhbGciOiJub.x.y", "eyJ.eyJ.abc",
    "-----BEGIN CERTIFICATE-----", "-----BEGIN PUBLIC KEY-----", "AKIA1234", "sk-learn is a library", "hf_model",
    "ghp_short", "basketball", "risk-management-in-2023-and-what-to-do-about-it", "AKIA" + "X" * 16,
    "the author's authorization to publish", "signature: 4 pages", "pass the word: bring snacks",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
]  # fmt: skip


@pytest.mark.parametrize(("name", "marked"), [(name, text) for name, texts in FOUND.items() for text in texts])
def test_it_is_found_where_it_stands(name, marked):
    text, spans = places(marked)
    found = [(entity.start, entity.end) for entity in SCANNER.find(text) if entity.type == name]
    assert [text[a:b] for a, b in found] == [text[a:b] for a, b in spans]
    assert found == spans


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_only_looks_like_it_is_not_found(text):
    assert SCANNER.find(text) == []


def test_every_type_has_examples():
    assert set(FOUND) == set(credentials.RULES)
