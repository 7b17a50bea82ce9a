"""Files and environment into a configuration that can go live, or every reason why it cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

from policies.compile import CompiledPolicy, compile_documents
from policies.errors import ConfigurationError, Problem
from policies.schema import Backend, Fleet, Ner, Policy, SecretReference, Tenants
from policies.source import Document, Include, parse
from policies.validate import validate
from router.credentials import Credentials, read_credentials
from router.ner.process import Recogniser, Unavailable, recogniser
from router.stamps import Seen, Stamp, stamp


@dataclass(frozen=True, slots=True)
class Configuration:
    policy: CompiledPolicy
    folder: Path  # that relative paths in the fleet start from
    api_keys: Mapping[str, str] = field(repr=False)  # backend -> secret
    warnings: tuple[Problem, ...] = ()
    artefacts: Mapping[str, tuple[Stamp, ...]] = field(default_factory=dict, repr=False)  # backend -> of its files
    candidate: CompiledPolicy | None = field(default=None, repr=False)  # decides beside the policy; nothing is sent
    credentials: Credentials | None = field(default=None, repr=False)  # None: no Tenants document
    files: Mapping[Path, Stamp] = field(default_factory=dict, repr=False)  # what it was read from, as it was before

    def same_as(self, other: Configuration) -> bool:
        """Whether it would change nothing."""
        digests = [one.candidate.digest if one.candidate else "" for one in (self, other)]
        return (
            (self.policy.digest, self.folder, digests[0]) == (other.policy.digest, other.folder, digests[1])
            and self.api_keys == other.api_keys
            and self.artefacts == other.artefacts
            and self.policy.intensities == other.policy.intensities  # a series is no part of the digest
            and self.credentials == other.credentials
        )


def yaml_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Files as given; of a folder its *.yaml and *.yml, without the policies' tests."""
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml"))
            yield from (p for p in found if not is_test(p))
        else:
            yield path


def is_test(path: Path) -> bool:
    return path.stem.endswith("_test")


def read(path: Path, env: Mapping[str, str], seen: Seen | None = None) -> tuple[list[Document], list[Problem]]:
    """What a file and those it includes hold. Every file that was looked for is added to `seen`."""
    seen = Seen() if seen is None else seen
    seen.add(path)
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        return [], [Problem(str(path), 0, 0, f"cannot be read: {error.strerror or error}")]
    except UnicodeDecodeError as error:
        return [], [Problem(str(path), 0, 0, f"not UTF-8: byte {error.start} cannot be decoded", "save it as UTF-8")]
    return parse(text, str(path), env, beside(seen))


def beside(seen: Seen) -> Include:
    """Reads the files that a document names, from its folder. Every one that was looked for is added to `seen`."""

    def include(file: str, written: str) -> tuple[str, str]:
        found = Path(file).parent / written
        seen.add(found)
        return str(found), found.read_bytes().decode()

    return include


def _compiled(
    paths: Iterable[Path], env: Mapping[str, str], seen: Seen, hint: str = ""
) -> tuple[CompiledPolicy | None, list[Document], list[Problem]]:
    """All files compiled together, with what they hold and everything that is wrong with it;
    `hint` is what to do where there is no fleet."""
    documents: list[Document] = []
    problems: list[Problem] = []
    files = list(yaml_files(paths))
    for path in files:
        found, wrong = read(path, env, seen)
        documents += found
        problems += wrong
    policy, wrong = compile_documents(documents, ZoneInfo, recognisers(documents), beside(seen))
    problems += wrong
    if not problems and not any(document.kind == "Fleet" for document in documents):
        where = ", ".join(map(str, files)) or "the given folder"
        problems.append(Problem(where, 0, 0, "no document of kind Fleet", hint))
    return policy, documents, problems


def policy_from(paths: Iterable[Path], env: Mapping[str, str]) -> CompiledPolicy:
    """Compiled from the files alone: artefacts and secrets are not needed to decide. Raises ConfigurationError."""
    policy, _, problems = _compiled(paths, env, Seen())
    if policy is None or any(p.severity == "error" for p in problems):
        raise ConfigurationError(p for p in problems if p.severity == "error")
    return policy


def load(paths: Iterable[Path], env: Mapping[str, str]) -> Configuration:
    """The fleet and policy in `paths`, checked against each other and against this machine. Raises with all
    reasons: what does not compile, secrets that are not set, artefacts that are not there."""
    seen = Seen()
    policy, documents, problems = _compiled(paths, env, seen, "a router needs backends: add one")
    fleet = _fleet(documents)
    if fleet is None:
        raise ConfigurationError(problems)
    model, document = fleet
    folder = Path(document.file).absolute().parent  # of the link, where it is one: mounted volumes are links
    problems += missing_files(model, document, folder)
    api_keys: dict[str, str] = {}
    artefacts: dict[str, tuple[Stamp, ...]] = {}
    for i, backend in enumerate(model.backends):
        own = [folder / name for _, name in _files(backend)]
        artefacts[backend.name] = tuple(stamp(path) for path in own)
        for path in own:
            seen.add(path)
        if backend.api_key is not None and backend.api_key.file is not None:
            seen.add(folder / backend.api_key.file)
        if backend.api_key is not None:
            secret, reason = _secret(backend.api_key, folder, env)
            if reason:
                problems.append(document.problem(("backends", i, "api_key"), reason))
            else:
                api_keys[backend.name] = secret
    problems += missing_models(documents)
    credentials, wrong = _credentials(documents, env, seen)
    problems += wrong
    errors = [p for p in problems if p.severity == "error"]
    if errors or policy is None:
        raise ConfigurationError(errors)
    warnings = tuple(p for p in problems if p.severity != "error")
    return Configuration(policy, folder, api_keys, warnings, artefacts, None, credentials, seen)


def _fleet(documents: Iterable[Document]) -> tuple[Fleet, Document] | None:
    for document in documents:
        checked = validate(document)
        if isinstance(checked.model, Fleet):
            return checked.model, checked.document
    return None


def _credentials(
    documents: Iterable[Document], env: Mapping[str, str], seen: Seen
) -> tuple[Credentials | None, list[Problem]]:
    for document in documents:
        if document.kind == "Tenants":
            checked = validate(document)
            if isinstance(checked.model, Tenants):
                folder = Path(document.file).absolute().parent
                return read_credentials(checked.model, checked.document, folder, env, seen)
    return None, []


def missing_files(fleet: Fleet, document: Document, folder: Path) -> Iterator[Problem]:
    """Artefacts and TLS files that the fleet names and this machine does not have."""
    for i, backend in enumerate(fleet.backends):
        for path, name in _files(backend):
            if not (folder / name).is_file():
                yield document.problem(
                    ("backends", i, *path), f"no file {name} in {folder}", "paths start from the fleet file's folder"
                )


def recognisers(documents: Iterable[Document]) -> Callable[[str], Recogniser]:
    """The models that detectors name: packages, or folders, whose paths start from the policy's."""
    folder = next((Path(d.file).absolute().parent for d in documents if d.kind == "Policy"), Path())
    return lambda model: recogniser(str(folder / model) if "/" in model else model)


def missing_models(documents: Iterable[Document]) -> Iterator[Problem]:
    """Models that detectors name and this machine cannot load. Loads those that it can."""
    known = recognisers(documents)
    for document in documents:
        checked = validate(document) if document.kind == "Policy" else None
        policy = checked.model if checked is not None else None
        for i, detector in enumerate(policy.sensitivity.detectors if isinstance(policy, Policy) else ()):
            if not isinstance(detector, Ner):
                continue
            try:
                known(detector.model).load()
            except Unavailable as error:
                hint = "install it beside spaCy in the router's environment (`pip install spacy …`), or name its folder"
                path = ("sensitivity", "detectors", i, "model")
                yield document.problem(path, f"the model cannot be loaded: {error}", hint)


def _files(backend: Backend) -> Iterator[tuple[tuple[str, ...], str]]:
    for name, model in backend.models.items():
        if model.artifact is not None:
            yield ("models", name, "artifact"), model.artifact
    for field_name in ("ca_file", "client_cert", "client_key") if backend.tls else ():
        file = getattr(backend.tls, field_name)
        if file is not None:
            yield ("tls", field_name), file


def _secret(reference: SecretReference, folder: Path, env: Mapping[str, str]) -> tuple[str, str]:
    """(secret, "") or ("", why it cannot be had). The reason never holds any of the secret."""
    if reference.env is not None:
        secret = env.get(reference.env, "").strip()
        reason = "" if secret else f"the environment variable {reference.env} is not set"
    else:
        try:
            secret = (folder / (reference.file or "")).read_text().strip()
            reason = "" if secret else f"the file {reference.file} is empty"
        except (OSError, UnicodeDecodeError):
            secret, reason = "", f"the file {reference.file} cannot be read"
    if secret and not (secret.isascii() and secret.isprintable()):
        return "", "the secret holds characters that a header cannot carry"
    return secret, reason
