"""How well and how fast the detectors find: precision and recall on labelled sentences, and the cost of a scan.

Run: make bench-pii, or .venv/bin/python benchmarks/pii.py. The sentences are shared/data/pii/*.json (presidio-research,
MIT); without them only the cost is measured. Where presidio-analyzer can be imported (it is no dependency), its numbers
stand beside ours: PRESIDIO=/path/to/its/venv/bin/python runs it there. NER=name-of-a-spaCy-model also measures names,
with that model. See README-pii.md for results.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from policies.schema import Ner, Pii, Secrets, Sensitivity
from policies.sensitivity import pii
from policies.sensitivity.detectors import build_detectors
from policies.sensitivity.scanner import Scanner
from router.ner.process import Recogniser

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "pii"
Span = tuple[str, int, int]

TYPES: Mapping[str, tuple[str, str]] = {
    "EMAIL_ADDRESS": ("EMAIL_ADDRESS", "EMAIL_ADDRESS"),
    "IBAN_CODE": ("IBAN_CODE", "IBAN_CODE"),
    "US_SSN": ("US_SSN", "US_SSN"),
    "IP_ADDRESS": ("IP_ADDRESS", "IP_ADDRESS"),
    "CREDIT_CARD": ("CREDIT_CARD", "CREDIT_CARD"),
    "PHONE_NUMBER": ("PHONE_NUMBER", "PHONE_NUMBER"),
    "DOMAIN_NAME": ("URL", "URL"),
    "US_DRIVER_LICENSE": ("DRIVER_LICENSE", "US_DRIVER_LICENSE"),
}
"""The label in the data -> our type and Presidio's."""


def scanner(everything: bool = False) -> Scanner:
    """What `pii` and `secrets` look for by default; or every type that there is."""
    detectors = [Pii(use="pii", label="confidential", entities=list(pii.RULES) if everything else None)]
    sensitivity = Sensitivity(detectors=[*detectors, Secrets(use="secrets", label="restricted")])
    return build_detectors(sensitivity, {level: i for i, level in enumerate(sensitivity.levels)})


def presidio(texts: Sequence[str]) -> list[list[Span]] | None:
    """What Presidio finds with a blank English pipeline; None where there is no Presidio."""
    python = os.environ.get("PRESIDIO", sys.executable)
    done = subprocess.run([python, "-c", _PRESIDIO], input=json.dumps(texts), capture_output=True, text=True)
    if done.returncode == 0:
        print(done.stderr.strip().splitlines()[-1])
    return [[tuple(span) for span in one] for one in json.loads(done.stdout)] if done.returncode == 0 else None


_PRESIDIO = """
import json, sys, tempfile
texts = json.load(sys.stdin)
import spacy
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.nlp_engine import NlpEngineProvider
folder = tempfile.mkdtemp()
spacy.blank("en").to_disk(folder)
configuration = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": folder}]}
nlp = NlpEngineProvider(nlp_configuration=configuration).create_engine()
engine = AnalyzerEngine(nlp_engine=nlp, supported_languages=["en"])
import time
begin = time.perf_counter()
found = [[(r.entity_type, r.start, r.end) for r in engine.analyze(text, language="en")] for text in texts]
print(f"Presidio: {(time.perf_counter() - begin) * 1e6 / sum(len(t.encode()) for t in texts) * 1024:,.0f} µs/KiB of "
      "these sentences", file=sys.stderr)
json.dump(found, sys.stdout)
"""


NAMES: Mapping[str, tuple[str, ...]] = {
    "PERSON": ("PERSON",),
    "LOCATION": ("STREET_ADDRESS", "GPE"),
    "ORGANIZATION": ("ORGANIZATION",),
}
"""Our type -> the labels in the data."""

SENTENCES = (
    ("{p}様より、{l}の店舗についてお問い合わせがありました。", "pl"),
    ("担当の{p}です。よろしくお願いいたします。", "p"),
    ("{o}の{p}さんと{l}で打ち合わせをしました。", "pol"),
    ("請求書は{o}宛てに、{l}へ送ってください。", "ol"),
    ("昨日、{p}から電話がありました。", "p"),
    ("本日は晴天なり。会議は三時からです。", ""),
    ("新しいモデルの遅延は二割ほど短くなりました。", ""),
)
"""Japanese, with places for a person, a place and an organisation."""
PEOPLE = (
    "田中太郎",
    "鈴木花子",
    "佐藤健一",
    "高橋由美子",
    "渡辺翔",
    "伊藤さくら",
    "山本五郎",
    "中村真理",
    "小林大輔",
    "加藤愛",
)
PLACES = ("東京都港区", "大阪市北区", "札幌", "福岡県", "横浜市", "名古屋", "京都府", "仙台市", "神戸", "千葉県柏市")
FIRMS = (
    "日立製作所",
    "トヨタ自動車",
    "東京電力",
    "三菱重工業",
    "富士通",
    "任天堂",
    "日本郵便",
    "パナソニック",
    "京セラ",
    "日産自動車",
)


def japanese() -> list[Mapping]:
    """Sentences with the places of their names, in the form of the labelled data."""
    samples = []
    for i in range(10):
        for j, (pattern, _) in enumerate(SENTENCES):
            names = {"p": PEOPLE[(i + j) % 10], "l": PLACES[(i + 2 * j) % 10], "o": FIRMS[(i + 3 * j) % 10]}
            text, spans = "", []
            for piece in re.split(r"(\{[plo]\})", pattern):
                if piece in ("{p}", "{l}", "{o}"):
                    kind = {"p": "PERSON", "l": "GPE", "o": "ORGANIZATION"}[piece[1]]
                    name = names[piece[1]]
                    spans.append(
                        {"entity_type": kind, "start_position": len(text), "end_position": len(text) + len(name)}
                    )
                    text += name
                else:
                    text += piece
            samples.append({"full_text": text, "spans": spans})
    return samples


def show_names(model: str) -> None:
    """How well a model finds names, and what it costs: in the labelled sentences, and in Japanese ones."""
    settings = Sensitivity(detectors=[Ner(use="ner", model=model, label="confidential", timeout_ms=600_000)])
    process = Recogniser(model)
    scan = build_detectors(settings, {level: i for i, level in enumerate(settings.levels)}, lambda _: process)
    print(f"{model}: names. `alone` is what the detectors of patterns find of them\n")
    print(f"{'':<46}{'with the model':>25}{'alone':>25}")
    print(f"{'type':<40}{'spans':>6}{('precision'):>10}{'recall':>8}{'false':>7}" + f"{'recall':>18}")
    for name, samples in (
        *((p.name, json.loads(p.read_text())) for p in sorted(DATA.glob("*.json"))),
        ("Japanese", japanese()),
    ):
        texts = [sample["full_text"] for sample in samples]
        begin = time.perf_counter()
        found = [[(e.type, e.start, e.end) for e in one] for one in scan.others[0].find(texts)]
        took = time.perf_counter() - begin
        alone = [[(e.type, e.start, e.end) for e in scanner(everything=True).find(text)] for text in texts]
        for ours, labels in NAMES.items():
            merged = [
                {**s, "spans": [{**x, "entity_type": ours} for x in s["spans"] if x["entity_type"] in labels]}
                for s in samples
            ]
            hit, missed, wrong = quality(merged, ours, found, ours)
            kinds = ("JP_ADDRESS",) if ours == "LOCATION" else ()
            renamed = [[(ours if kind in kinds else kind, a, b) for kind, a, b in one] for one in alone]
            bare = quality(merged, ours, renamed, ours)
            recall = f"{bare[0] / (bare[0] + bare[1]):.3f}" if bare[0] + bare[1] else "-"
            print(f"{name + ' ' + ours:<40}{hit + missed:>6}{shares(hit, missed, wrong)}{recall:>18}")
        kib = sum(len(text.encode()) for text in texts) / 1024
        print(f"{name}: {took * 1e6 / kib:,.0f} µs/KiB\n")


def quality(samples: Sequence[Mapping], label: str, found: Sequence[Sequence[Span]], name: str) -> tuple[int, int, int]:
    """(found, missed, false alarms): a finding counts for a labelled span that it overlaps."""
    hit = missed = wrong = 0
    for sample, spans in zip(samples, found, strict=True):
        gold = [(s["start_position"], s["end_position"]) for s in sample["spans"] if s["entity_type"] == label]
        ours = [(start, end) for kind, start, end in spans if kind == name]
        for start, end in gold:
            if any(a < end and start < b for a, b in ours):
                hit += 1
            else:
                missed += 1
        wrong += sum(not any(a < end and start < b for start, end in gold) for a, b in ours)
    return hit, missed, wrong


def shares(hit: int, missed: int, wrong: int) -> str:
    precision = f"{hit / (hit + wrong):.3f}" if hit + wrong else "-"
    recall = f"{hit / (hit + missed):.3f}" if hit + missed else "-"
    return f"{precision:>10}{recall:>8}{wrong:>7}"


def show_quality(path: Path) -> None:
    samples = json.loads(path.read_text())
    texts = [sample["full_text"] for sample in samples]
    scan = scanner(everything=True)
    ours = [[(e.type, e.start, e.end) for e in scan.find(text)] for text in texts]
    theirs = presidio(texts)
    print(f"{path.name}: {len(samples)} sentences; a finding counts where it overlaps a labelled span\n")
    print(f"{'':<20}{'':>6}{'Pointsman':>25}{'' if theirs is None else 'Presidio':>25}")
    columns = f"{'precision':>10}{'recall':>8}{'false':>7}"
    print(f"{'type':<20}{'spans':>6}{columns}{'' if theirs is None else columns}")
    for label, (own, other) in TYPES.items():
        score = quality(samples, label, ours, own)
        beside = "" if theirs is None else shares(*quality(samples, label, theirs, other))
        print(f"{label:<20}{score[0] + score[1]:>6}{shares(*score)}{beside}")
    if theirs is None:
        print("(presidio-analyzer cannot be imported: no comparison)")
    print()


# --- cost ---------------------------------------------------------------------------------------------------------

ENGLISH = (
    "The quick brown fox jumps over the lazy dog, and then it explains how a router decides where a request may go. "
    "In 2023 about 15 percent of all calls took more than 200 ms; the median was 80. "
)
JAPANESE = (
    "本日の会議では、推論リクエストをどこに送るかについて議論しました。"
    "遅延は200ミリ秒以内とし、費用は１件あたり０．１円を目標とします。"
)
HITS = " Please write to taro@example.com or call 090-1234-5678 today. "

STDLIB = [
    r"[A-Za-z0-9_.+%-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+", r"\+?\d[\d ().-]{7,20}\d", r"\b(?:\d[ -]?){12,18}\d\b",
    r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}", r"\b\d{1,3}(?:\.\d{1,3}){3}\b",
    r"\b(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\b",
    r"\b\d{3}-\d{2}-\d{4}\b", r"https?://\S+", r"\b\d{4}[ -]?\d{4}[ -]?\d{4}\b", r"〒?\d{3}-\d{4}",
    r"\bAKIA[A-Z2-7]{16}\b",
    r"\bgh[pousr]_[0-9A-Za-z]{36}", r"-----BEGIN [A-Z ]*PRIVATE KEY-----", r"\beyJ[\w-]+\.[\w-]+\.[\w-]*",
    r"(?i)(?:password|token|api[_ -]?key)\s*[:=]\s*\S+",
]  # fmt: skip
"""Fifteen patterns of the same kinds, for the standard library to find one after the other."""


def cost(work: Callable[[], object], kib: float) -> float:
    """µs per KiB, the best of seven rounds."""
    rounds = max(3, int(300 / kib))
    for _ in range(3):
        work()
    best = float("inf")
    for _ in range(7):
        begin = time.perf_counter()
        for _ in range(rounds):
            work()
        best = min(best, (time.perf_counter() - begin) / rounds)
    return best * 1e6 / kib


def show_cost() -> None:
    begin = time.perf_counter()
    scan = scanner()
    built = (time.perf_counter() - begin) * 1e3
    print(f"python {platform.python_version()}, {platform.machine()}; {built:.0f} ms to build")
    patterns = [re.compile(pattern) for pattern in STDLIB]
    kinds = {
        "English, clean, 4 KiB": ENGLISH * 21,
        "English, clean, 64 KiB": ENGLISH * 340,
        "Japanese, clean, 4 KiB": JAPANESE * 22,
        "English, 2 hits in 1 KiB": ENGLISH * 5 + HITS,
        "English, 8 hits in 4 KiB": (ENGLISH * 5 + HITS) * 4,
        "Japanese, 2 hits in 1 KiB": JAPANESE * 5 + HITS,
        "this benchmark's source": Path(__file__).read_text(),
    }
    for path in sorted(DATA.glob("*.json")):
        samples = json.loads(path.read_text())
        kib = sum(len(sample["full_text"].encode()) for sample in samples) / 1024
        dense = f"labelled, {sum(len(sample['spans']) for sample in samples) / kib:.0f} per KiB"
        kinds[dense] = "\n".join(sample["full_text"] for sample in samples)
    print(f"\n{'text':<28}{'KiB':>8}{'scan µs/KiB':>14}{'15 x re µs/KiB':>17}")
    for name, text in kinds.items():
        kib = len(text.encode()) / 1024
        ours = cost(lambda text=text: scan.outcomes([text]), kib)
        others = cost(lambda text=text: [list(p.finditer(text)) for p in patterns], kib)
        print(f"{name:<28}{kib:>8.1f}{ours:>14.1f}{others:>17.1f}")


def main() -> None:
    files = sorted(DATA.glob("*.json"))
    if not files:
        print("no labelled sentences in shared/data/pii: precision and recall are skipped\n")
    for path in files:
        show_quality(path)
    if os.environ.get("NER"):
        show_names(os.environ["NER"])
    show_cost()


if __name__ == "__main__":
    main()
