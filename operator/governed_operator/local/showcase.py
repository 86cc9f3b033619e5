"""`governed run --once`: the sample's requests, and what came of them, as a person sees it."""

import asyncio
import time

import httpx
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from governed_api import routes
from governed_api.report import AuditorReport
from governed_api.verdict import WITHIN_THRESHOLDS
from governed_operator.local.audit_view import bias_table, data_audit, gate_table
from governed_operator.local.client import ModelClient
from governed_operator.local.errors import LocalError
from governed_operator.local.explanation_view import answer_view, explanation_view
from governed_operator.local.json_client import ClientError
from governed_operator.local.plain_console import plain_console
from governed_operator.local.proof import answered, verify, wait_for_entry
from governed_operator.local.reports import training_report
from governed_operator.local.run import Running
from governed_operator.local.sample import Sample

MARGIN = 15.0
"""Seconds that we wait beyond the model's own timeout, whose 504 says more than silence."""
VERDICT_PATIENCE = 60.0
"""Seconds in which the auditor must have folded another row."""
WIDTH = 130
"""Columns where no terminal says how many there are."""


async def show(running: Running, sample: Sample, console: Console | None = None) -> None:
    """Send ``sample``, print everything in order. Raises LocalError when a step fails."""
    console = console or plain_console()
    if not console.is_terminal:
        console = plain_console(width=WIDTH)
    _training(console, running)
    try:
        timeout = running.model.spec.predictor.timeout + MARGIN
        with ModelClient(running.url, running.model.name, timeout=timeout) as client:
            first = await _predictions(console, client, sample)
            if running.model.spec.explainer:
                await _explanations(console, client, sample)
    except ClientError as error:
        raise LocalError(str(error)) from error
    if running.model.spec.governance.bias:
        await _bias(console, running, sample.total)
    await _masking(console, running)
    await _proof(console, running, first)


def _training(console: Console, running: Running) -> None:
    trainer = training_report(running.workdir, running.model.name)
    if trainer is None:
        return
    if trainer.data_audit:
        console.print(Rule("data audit: what was decided before any model", align="left"))
        console.print(data_audit(trainer.data_audit))
    if trainer.gates:
        console.print(Rule("gates: what decides what ships", align="left"))
        console.print(gate_table(trainer.gates))
    if trainer.artefact is not None:
        console.print(Text(f"artefact {trainer.artefact.digest} ({trainer.artefact.variant})", style="dim"))


async def _predictions(console: Console, client: ModelClient, sample: Sample) -> str:
    """Print the first answer, send the rest; returns the first request's id."""
    console.print(Rule("prediction", align="left"))
    batches = sample.batches()
    example = sample.instances[sample.explain[0] if sample.explain else 0]
    began = time.perf_counter()
    answer = await asyncio.to_thread(client.infer, [example])
    taken = (time.perf_counter() - began) * 1000
    console.print(Text(" ".join(f"{k}={v}" for k, v in example.items())))
    console.print(answer_view(answer, await asyncio.to_thread(client.metadata)))
    console.print(Text(f"{taken:.1f} ms", style="dim"))
    for rows in batches:
        await asyncio.to_thread(client.infer, rows)
    console.print(Text(f"{sample.total:,} rows more in {len(batches):,} requests", style="dim"))
    return str(answer["id"])


async def _explanations(console: Console, client: ModelClient, sample: Sample) -> None:
    for index in sample.explain:
        row = sample.instances[index]
        title = " ".join(f"{k}={_clip(v)}" for k, v in row.items())
        console.print(Rule(f"explanation: {title}", align="left"))
        console.print(explanation_view(await asyncio.to_thread(client.explain_in_time, row, {})))


def _clip(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:23]}…"


async def _bias(console: Console, running: Running, expected: int) -> None:
    console.print(Rule("bias verdict", align="left"))
    verdict = await _verdict(running, expected)
    console.print(bias_table(verdict.metrics))
    status = WITHIN_THRESHOLDS[verdict.verdict]
    line = Text(f"BiasWithinThresholds={status}  ", style={"True": "green", "False": "bold red"}.get(status, "yellow"))
    console.print(line + Text(f"{verdict.summary}  ({verdict.samples:,} samples)"))


async def _verdict(running: Running, expected: int) -> AuditorReport:
    """The auditor's verdict once it has seen ``expected`` rows. Raises LocalError when it gets no further."""
    deadline = time.monotonic() + VERDICT_PATIENCE
    report = AuditorReport(verdict="Unknown")
    headers = running.auditor_headers
    async with httpx.AsyncClient(base_url=running.auditor_url, headers=headers, trust_env=False, timeout=5) as client:
        while True:
            answer = await answered(client, routes.VERDICT)
            if answer is not None and answer.status_code == 200:
                before, report = report.samples, AuditorReport.model_validate_json(answer.content)
                if report.samples > before:
                    deadline = time.monotonic() + VERDICT_PATIENCE
            if report.samples >= expected:
                return report
            if time.monotonic() > deadline:
                raise LocalError(
                    f"the auditor has folded {report.samples} of {expected} rows, and none in the last "
                    f"{VERDICT_PATIENCE:.0f} s: see its log"
                )
            await asyncio.sleep(0.05)


async def _masking(console: Console, running: Running) -> None:
    if running.model.spec.governance.privacy.masking is None:
        return
    console.print(Rule("masking", align="left"))
    async with httpx.AsyncClient(base_url=running.url, trust_env=False, timeout=60) as client:
        try:
            lines = (await client.get(routes.METRICS_PATH)).text.splitlines()
        except httpx.TransportError as error:
            raise LocalError(f"{running.url}{routes.METRICS_PATH}: {str(error) or type(error).__name__}") from error
    counters = [line for line in lines if "mask" in line and not line.startswith("#") and not line.endswith(" 0.0")]
    for line in counters or ["nothing was masked"]:
        console.print(Text(line))


async def _proof(console: Console, running: Running, request: str) -> None:
    console.print(Rule("proof", align="left"))
    entry = await wait_for_entry(running, request)
    passed, words = await verify(running, request)
    console.print(Text(f"request {request} is ledger entry {entry.get('index')}"))
    console.print(Text(words))
    if not passed:
        raise LocalError("the ledger does not verify: see the verifier's words above")
    console.print(Text("the inclusion proof verifies offline", style="bold green"))
