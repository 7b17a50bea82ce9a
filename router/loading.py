"""What may go live: a configuration that compiles, finds everything it names, and passes its own tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from zoneinfo import ZoneInfo

from policies.compile import CompiledPolicy, compile_documents
from policies.errors import ConfigurationError, Problem
from policies.source import Document
from router.configuration import Configuration, beside, load, missing_models, read, recognisers, yaml_files
from router.policytests import run_file, tests_beside
from router.stamps import Seen, Stamp, stamp


@dataclass(frozen=True, slots=True)
class ConfigurationLoader:
    """Reads one configuration, as often as it is called. Holds no state, so it can be called in any thread."""

    paths: tuple[Path, ...]
    env: Mapping[str, str] = field(repr=False)  # may hold keys
    run_tests: bool = True
    candidate: Path | None = None  # a policy to decide beside the live one, for the same fleet
    reachable_at: str = ""  # the address beyond this machine that it will be served on: then there must be tenants

    def __call__(self) -> Configuration:
        """Raises ConfigurationError with every reason why it must not go live."""
        tests = {path: stamp(path) for path in self._tests()} if self.run_tests else {}
        configuration = load(self.paths, self.env)
        problems = [problem for path in sorted(tests) for problem in self._failures(path, configuration.policy)]
        candidate, more, seen = self._candidate()
        problems += [*more, *self._unprotected(configuration)]
        if problems:
            raise ConfigurationError(problems)
        return replace(configuration, candidate=candidate, files={**configuration.files, **tests, **seen})

    def _unprotected(self, configuration: Configuration) -> Iterator[Problem]:
        """A router that others can reach must know who they are, after every reload as well."""
        if self.reachable_at and configuration.policy.tenants is None:
            yield Problem(
                ", ".join(map(str, self.paths)),
                0,
                0,
                f"no document of kind Tenants, and the router listens on {self.reachable_at}: whoever reaches it could "
                "use it",
                "add tenants with keys (see `pointsman key new`), listen on 127.0.0.1, or say --allow-anonymous",
            )

    def stamps(self, configuration: Configuration) -> frozenset[Stamp]:
        """Of every file that a configuration came from, and of those that would now be read: these change when
        something may have changed."""
        files = {*configuration.files, *yaml_files(self.paths), *(self._tests() if self.run_tests else ())}
        return frozenset(stamp(path) for path in files)

    def _tests(self) -> Iterator[Path]:
        """The tests beside the files."""
        folders = {path if path.is_dir() else path.parent for path in self.paths}
        for folder in sorted(folders):
            yield from tests_beside(folder)

    def _failures(self, path: Path, policy: CompiledPolicy) -> Iterator[Problem]:
        """Of the tests that are about this configuration, those that name other files left out."""
        try:
            file, results = run_file(path, self.env, policy)
        except ConfigurationError as error:
            yield from error.problems
            return
        served = {one.absolute() for one in yaml_files(self.paths)}
        if file.test.configuration is not None and {one.absolute() for one in file.configuration} != served:
            return
        for result in results:
            for failure in result.failures:
                told = f"the test '{result.case.name}' fails: {failure}"
                yield Problem(str(path), result.line, 1, told, f"run `pointsman test {path}` to see the decision")

    def _candidate(self) -> tuple[CompiledPolicy | None, list[Problem], Seen]:
        if self.candidate is None:
            return None, [], Seen()
        seen = Seen()
        documents: list[Document] = []
        problems: list[Problem] = []
        for path in (*yaml_files(self.paths), self.candidate):
            found, wrong = read(path, self.env, seen)
            wanted = ("Policy",) if path == self.candidate else ("Fleet", "Tenants")
            documents += [document for document in found if document.kind in wanted]
            problems += wrong if path == self.candidate else []
        compiled, wrong = compile_documents(documents, ZoneInfo, recognisers(documents), beside(seen))
        problems += missing_models(documents)
        problems += [problem for problem in wrong if problem.severity == "error"]
        if not problems and not any(document.kind == "Policy" for document in documents):
            problems.append(Problem(str(self.candidate), 0, 0, "no document of kind Policy"))
        return compiled, problems, seen
