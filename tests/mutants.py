"""Takes out one guard at a time and shows that the tests notice: `make mutants`.

Each mutant is a copy of the sources with one change; the tests named with it must fail on it. Not part of `make test`:
it runs the tests of the promises once per mutant.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = (
    "policies", "backends", "router", "dashboards", "tests", "configs", "docs", "helm", "pyproject.toml", "README.md",
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    promise: str
    change: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = (
    Mutant(
        "2 clearance", "the filter lets everything pass", "policies/filters.py",
        "    if label > target.clearance:", "    if False:",
        "tests/router/test_promises.py",
    ),
    Mutant(
        "2 clearance", "the guard where calls leave lets everything pass", "router/guard.py",
        "        if label not in self._permitted:", "        if False:",
        "tests/router/test_execution.py",
    ),
    Mutant(
        "2 clearance", "a backend without a clearance may see everything", "policies/targets.py",
        "if backend.clearance is not None else 0", "if backend.clearance is not None else len(ranks) - 1",
        "tests/policies",
    ),
    Mutant(
        "3 doubt", "a detector that fails raises nothing", "policies/sensitivity/labels.py",
        '                raised.append((f"{outcome.name}:failed", top))\n', "",
        "tests/router/test_promises.py",
    ),
    Mutant(
        "3 doubt", "text that cannot be read raises nothing", "policies/sensitivity/labels.py",
        '        raised.append(("unreadable", top))', "        pass",
        "tests/policies/test_labels.py",
    ),
    Mutant(
        "3 doubt", "a prefilter that ran out of memory found nothing", "policies/sensitivity/prefilter.py",
        "raise Blind", "return frozenset() or Blind",
        "tests/policies/sensitivity/test_scanner.py",
    ),
    Mutant(
        "3 doubt", "an unknown level in a header counts as none", "router/hints.py",
        "        return policy.rank(value)\n    except KeyError:",
        "        return policy.rank(value)\n    except KeyError:\n        return None\n    except ValueError:",
        "tests/router/test_bad_input.py",
    ),
    Mutant(
        "1 only rises", "the caller's header replaces what was found", "policies/sensitivity/labels.py",
        "    rank = max(rank for _, rank in raised)",
        "    rank = max(rank for _, rank in raised) if header is None else header",
        "tests/router/test_promises.py",
    ),
    Mutant(
        "1 only rises", "masked text is not looked at again", "router/requests.py",
        "None if left is None else left.rank", "None if left is None else 0",
        "tests/router/test_promises.py tests/router/test_pseudonymise.py",
    ),
    Mutant(
        "1 only rises", "words about the whole text are masked like names", "policies/sensitivity/pseudonyms.py",
        'NOT_MASKABLE = frozenset({"KEYWORD"})', "NOT_MASKABLE = frozenset[str]()",
        "tests/policies/sensitivity/test_pseudonyms.py tests/router/test_pseudonymise.py",
    ),
    Mutant(
        "1 only rises", "the second of two equal keys is the one that is scanned", "backends/jsonbody.py",
        "    if sum(1 for colon in _STRING.findall(data) if colon) != keys:", "    if False:",
        "tests/backends/test_jsonbody.py",
    ),
    Mutant(
        "4 no payload", "what a caller's trace state says goes to the cloud", "router/telemetry/tracing.py",
        'return self._state if tier != "cloud" else ""', "return self._state",
        "tests/router/test_tracing.py",
    ),
    Mutant(
        "4 no payload", "a path's model stands in spans", "router/exchange.py",
        "http.method, self._wire.route, http.headers", "http.method, http.path, http.headers",
        "tests/router/test_tracing.py",
    ),
    Mutant(
        "4 no payload", "a model that nobody serves stands in spans", "router/telemetry/tracing.py",
        '"pointsman.model": shown_model(decided.request, policy)', '"pointsman.model": decided.request.model',
        "tests/router/test_tracing.py",
    ),
    Mutant(
        "4 no payload", "an exception's message stands in log lines", "router/telemetry/logs.py",
        'return message.partition("\\n")[0] if record.name == "asyncio" else message', "return message",
        "tests/router/test_logs.py",
    ),
    Mutant(
        "4 no payload", "the name of an unknown model is logged", "router/decisionlog/record.py",
        "    return replace(request, model=UNKNOWN_MODEL, route=route)\n", "    return request\n",
        "tests/router/test_decision_log.py",
    ),
    Mutant(
        "5 bad policy", "a reload does not run the tests beside the policy", "router/loading.py",
        "for path in self._tests()} if self.run_tests else {}", "for path in self._tests()} if False else {}",
        "tests/router/test_reload.py",
    ),
    Mutant(
        "5 bad policy", "a configuration with errors compiles", "policies/compile.py",
        'or any(p.severity == "error" for p in problems)', "or False",
        "tests/router/test_reload.py tests/policies/test_bad_files.py",
    ),
    Mutant(
        "1 only rises", "placeholders of the caller's own hide names", "policies/sensitivity/labels.py",
        "PLACEHOLDER if masked else None", "PLACEHOLDER",
        "tests/policies/sensitivity/test_ner.py",
    ),
    Mutant(
        "3 doubt", "a model of names that gives no answer found nothing", "router/ner/process.py",
        "                raise Unavailable(type(error).__name__) from None",
        "                return [[] for _ in texts]",
        "tests/router/ner/test_process.py",
    ),
    Mutant(
        "identity", "an unknown key is anonymous", "router/identity.py",
        '        if tenant is None:\n            raise Unauthenticated("unknown", "the key is not valid")\n'
        "        return tenant\n\n    async",
        "        return tenant or ANYONE\n\n    async",
        "tests/router/test_identity.py",
    ),
    Mutant(
        "identity", "two credentials that differ: the first counts", "router/identity.py",
        "not hmac.compare_digest(key, bearer)", "False",
        "tests/router/test_identity.py",
    ),
    Mutant(
        "identity", "a token's audience does not matter", "router/jwt.py",
        "                audience=self.settings.audience,\n",
        '                audience=jwt.decode(token, options={"verify_signature": False})["aud"],\n',
        "tests/router/test_jwt.py",
    ),
    Mutant(
        "identity", "a token may choose any algorithm", "router/jwt.py",
        "if algorithm not in self.settings.algorithms:", "if False:",
        "tests/router/test_jwt.py",
    ),
    Mutant(
        "identity", "a token outlives the key that signed it", "router/jwt.py",
        "                self._known.clear()", "                pass",
        "tests/router/test_jwt.py",
    ),
    Mutant(
        "identity", "any admin token opens the admin port", "router/identity.py",
        "if not any(matches):", "if not matches:",
        "tests/router/test_admin_token.py",
    ),
    Mutant(
        "identity", "a tenant may declassify without the right to", "router/requests.py",
        "if asked and not may:", "if False:",
        "tests/router/test_identity.py tests/policies/test_tenants.py",
    ),
    Mutant(
        "identity", "a tenant's floor does not count", "router/requests.py",
        "None if policy.tenants is None else tenant.floor", "None",
        "tests/router/test_promises.py tests/router/test_identity.py",
    ),
    Mutant(
        "evidence", "an edited line of the log is taken for intact", "router/decisionlog/chain.py",
        'hashlib.sha256(line[:-_TAIL]).hexdigest() == record["hash"]', "True",
        "tests/router/test_decision_log.py",
    ),
    Mutant(
        "one answer", "half an event goes to the client", "backends/openai.py",
        "end = _whole_events(data) or (len(data) if len(data) > _LONG_EVENT else 0)", "end = len(data)",
        "tests/backends/test_openai_backend.py",
    ),
    Mutant(
        "one answer", "a stream that was cut counts as ended", "backends/openai.py",
        "if rest.strip() or not (self._framed or self._done):", "if False:",
        "tests/backends/test_openai_backend.py",
    ),
    Mutant(
        "one answer", "a client that leaves goes on being served", "router/http/request.py",
        "            self.task.cancel()", "            pass",
        "tests/chaos/test_faults.py::test_a_client_that_leaves_cancels_the_call_to_the_backend",
    ),
    Mutant(
        "one answer", "a header without an end is taken in for ever", "router/http/connection.py",
        "        if self._unheard > 2 * MAX_HEAD_BYTES:", "        if False:",
        "tests/router/test_listener.py",
    ),
    Mutant(
        "one answer", "who does not read is answered on and on", "router/http/connection.py",
        "        if self._current is None and self.writable:", "        if self._current is None:",
        "tests/router/test_listener.py",
    ),
    Mutant(
        "one answer", "any transfer-encoding is taken for chunked", "router/http/connection.py",
        'value.lower() != b"chunked"', "False",
        "tests/router/test_listener.py",
    ),
    Mutant(
        "2 clearance", "a filter that has something to say is not asked", "policies/filters.py",
        "context.label <= context.bounds.clearance", "True",
        "tests/policies/test_decide_properties.py",
    ),
    Mutant(
        "budgets", "what is on its way is not reserved", "router/ledgers/book.py",
        "        self.reserved += amount\n", "",
        "tests/router/test_budgets.py",
    ),
    Mutant(
        "budgets", "what a process that died held counts as free", "router/ledgers/leases.py",
        "sum(max(holder.granted, holder.used) for", "sum(holder.used for",
        "tests/router/ledgers/test_leases.py",
    ),
    Mutant(
        "budgets", "what is given back is still used", "router/ledgers/book.py",
        "        self.granted = min(self.granted, self.used + wanted)\n", "",
        "tests/router/ledgers/test_leases.py",
    ),
    Mutant(
        "budgets", "a report that is late counts", "router/ledgers/leases.py",
        "    if seq <= before.seq:", "    if False:",
        "tests/router/ledgers/test_leases.py",
    ),
    Mutant(
        "budgets", "what is granted is not written down", "router/ledgers/file.py",
        "            self._write(changed)\n", "",
        "tests/router/ledgers/test_file.py",
    ),
    Mutant(
        "batching", "each gets the first rows of a batch", "backends/batching.py",
        "        begin += member.rows\n", "",
        "tests/backends/test_batching.py",
    ),
    Mutant(
        "batching", "outputs are split whatever rows they have", "backends/batching.py",
        "            mixed = not _row_by_row(joined,", "            mixed = False and not _row_by_row(joined,",
        "tests/backends/test_batching.py",
    ),
    Mutant(
        "batching", "rows of what was found count as rows of what was asked", "backends/batching.py",
        "    if len(names) > 1:", "    if False:",
        "tests/backends/test_onnx_backend.py",
    ),
    Mutant(
        "decision log", "a replay forgets what the hour's power emitted", "router/decisionlog/record.py",
        "        state.g_per_kwh,\n", "        (),\n",
        "tests/router/test_intensities.py",
    ),
    Mutant(
        "reload", "a new forecast changes nothing", "router/configuration.py",
        "            and self.policy.intensities == other.policy.intensities", "            and True",
        "tests/router/test_intensities.py",
    ),
    Mutant(
        "batching", "requests of any shape and type go together", "backends/batching.py",
        "array.dtype.str, array.shape[1:]) for", '"", ()) for',
        "tests/backends/test_batching.py",
    ),
    Mutant(
        "batching", "one bad request fails the whole batch", "backends/batching.py",
        "            answers = {}  # whose it was, the runs one by one tell",
        "            answers = dict.fromkeys(there, Failed(\"\"))",
        "tests/backends/test_batching.py",
    ),
    Mutant(
        "batching", "whoever left is run all the same", "backends/batching.py",
        "                forming.members.remove(member)\n", "",
        "tests/backends/test_batching.py",
    ),
    Mutant(
        "the chart", "a host without addresses is left out in silence", "helm/pointsman/templates/_network.tpl",
        "{{- if .missing -}}",
        "{{- if false -}}",
        "tests/helm/test_chart_network.py",
    ),
    Mutant(
        "the chart", "an address stands for its neighbours", "helm/pointsman/templates/_network.tpl",
        'printf "%s/32" $host',
        'printf "%s/24" $host',
        "tests/helm/test_chart_network.py",
    ),
    Mutant(
        "the chart", "the root file system can be written", "helm/pointsman/templates/_pod.tpl",
        "readOnlyRootFilesystem: true",
        "readOnlyRootFilesystem: false",
        "tests/helm/test_chart_security.py",
    ),
    Mutant(
        "the chart", "models are given the keys", "helm/pointsman/templates/rayservice.yaml",
        '{{- include "pointsman.plainEnv" $ | nindent 18 }}',
        '{{- include "pointsman.env" $ | nindent 18 }}',
        "tests/helm/test_chart_security.py",
    ),
    Mutant(
        "the chart", "files are mounted so that changes never arrive", "helm/pointsman/templates/_pod.tpl",
        "- {name: config, mountPath: /etc/pointsman, readOnly: true}",
        "- {name: config, mountPath: /etc/pointsman/a, subPath: a}",
        "tests/helm/test_chart_templates.py",
    ),
    Mutant(
        "the chart", "the hidden folder of a mounted ConfigMap is read", "router/policytests.py",
        'if not any(part.startswith(".")',
        'if not any(part.startswith("?")',
        "tests/router/test_cli_tools.py",
    ),
    Mutant(
        "an end loses no request", "what the kernel has accepted ends with the socket", "router/http/server.py",
        "waiting.append(self._sock.accept()[0])", "break",
        "tests/router/test_drain.py",
    ),
    Mutant(
        "an end loses no request", "clients are not told to come back elsewhere", "router/http/connection.py",
        " and not self._server.last", "",
        "tests/router/test_drain.py",
    ),
    Mutant(
        "an end loses no request", "the listener closes at once", "router/server.py",
        "return max(self._service.settings.drain_delay_s - passed, 0.0)", "return 0.0",
        "tests/router/test_pod_end.py",
    ),
    Mutant(
        "telemetry", "a model's name is a label as the caller wrote it", "router/progress.py",
        "        model = parsed.model if parsed.model in policy.model_names else UNKNOWN_MODEL",
        "        model = parsed.model",
        "tests/router/test_metrics.py",
    ),
    Mutant(
        "decision log", "what waits behind lost records still follows from them", "router/decisionlog/writer.py",
        "            self._mend()\n", "            pass\n",
        "tests/router/test_decision_log.py",
    ),
    Mutant(
        "decision log", "the files of a writer at work are let go", "router/decisionlog/keeping.py",
        "            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "",
        "tests/router/test_decision_log.py",
    ),
    Mutant(
        "decision log", "a decision whose candidate takes long is lost where the router stops", "router/candidate.py",
        "                then(None if work.cancelled() else work.result())",
        "                work.cancelled() or then(work.result())",
        "tests/router/test_reload.py",
    ),
    Mutant(
        "routing", "a slow client makes its backend slow", "router/billing.py",
        "        if not held_up:\n", "        if True:\n",
        "tests/router/test_listener.py",
    ),
    Mutant(
        "telemetry", "a decision whose request goes on is shown nowhere", "router/service.py",
        "= (*self.exchanges, *self.endings.untold)\n", "= ()\n",
        "tests/router/test_admin.py",
    ),
    Mutant(
        "telemetry", "an alternative that can be cheaper is not asked", "policies/accounts.py",
        "        and one.usd_per_token_out <= other.usd_per_token_out\n", "",
        "tests/policies/test_accounts.py",
    ),
    Mutant(
        "telemetry", "a copy's cost is in no metric", "router/service.py",
        "        self.accounts.copied(bill.charges)\n", "        pass\n",
        "tests/router/test_costs.py",
    ),
    Mutant(
        "telemetry", "what nobody got is not charged", "router/service.py",
        '                bill.charge(live, decided, "unused", one.candidate, counted, one.seconds)',
        "                del counted",
        "tests/router/test_costs.py",
    ),
    Mutant(
        "telemetry", "the copies' cost is in no record", "router/shadow.py",
        "            if bill.charges:  # a copy costs what a request costs",
        "            if False:",
        "tests/router/test_costs.py",
    ),
    Mutant(
        "telemetry", "what a reload took away is shown on", "router/telemetry/exposition.py",
        "[sample for sample in family.samples if sample.value == sample.value]", "list(family.samples)",
        "tests/router/test_metrics.py",
    ),
    Mutant(
        "1 labels", "a simulation takes a level that it does not know for the lowest",
        "policies/simulation/translation.py",
        "if level in now.levels else top for level", "if level in now.levels else 0 for level",
        "tests/policies/test_simulation.py",
    ),
    Mutant(
        "1 labels", "a simulation forgets what was found", "policies/simulation/translation.py",
        "            if source not in _NOT_FOUND_IN_IT\n", '            if source == "header"\n',
        "tests/policies/test_simulation.py",
    ),
    Mutant(
        "3 doubt", "a simulation takes a doubt for the level that was highest then",
        "policies/simulation/translation.py",
        "top if _is_doubt(source) else ranks[rank]", "ranks[rank]",
        "tests/policies/test_simulation.py",
    ),
    Mutant(
        "2 clearance", "a simulation does not tell of copies that reach a cloud", "policies/simulation/run.py",
        "reached=(*ended.reached, copied.target))", "reached=ended.reached)",
        "tests/policies/test_simulation.py",
    ),
    Mutant(
        "2 clearance", "a simulation takes a full fleet for a constraint", "policies/simulation/moves.py",
        "if before.reached else _allowed(before.decision, tiers)", "if before.reached else 0",
        "tests/policies/test_simulation.py",
    ),
    Mutant(
        "5 tools", "a simulation believes a record that no router has written", "router/simulation/logged.py",
        "        if not 0 <= amount < _MOST:", "        if False:",
        "tests/router/test_simulate.py",
    ),
)  # fmt: skip


def run(mutant: Mutant) -> tuple[bool, float]:
    """(whether the tests notice, seconds)."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        for name in COPIED:
            source = ROOT / name
            ignore = shutil.ignore_patterns("__pycache__", "models")
            if source.is_dir():
                shutil.copytree(source, Path(folder) / name, ignore=ignore)
            else:
                shutil.copy(source, folder)
        file = Path(folder) / mutant.file
        text = file.read_text(encoding="utf-8")
        if text.count(mutant.old) != 1:
            raise SystemExit(f"{mutant.file}: the line to change is not there once: {mutant.old.strip()}")
        file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests.split()]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode not in (0, 1):
        raise SystemExit(f"{mutant.change}: the tests could not be run\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    return ended.returncode == 1, time.monotonic() - began


def main() -> int:
    """Arguments: words that the changes to try must hold; none: all."""
    survived = 0
    tried = [one for one in MUTANTS if all(word in one.change for word in sys.argv[1:])]
    for mutant in tried:
        noticed, seconds = run(mutant)
        survived += not noticed
        print(
            f"{'noticed' if noticed else 'SURVIVED'}  {seconds:5.1f} s  {mutant.promise:<14} {mutant.change}",
            flush=True,
        )
    print(f"{len(tried) - survived} of {len(tried)} noticed")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
