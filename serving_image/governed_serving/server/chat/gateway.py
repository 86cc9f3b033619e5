"""Conversations on the governed path: decode → admit → mask → journal the prompt → runtime → mask the answer → journal
the completion → settle → end.

The prompt is in the journal before the runtime sees it, the completion before the client learns that it is complete.
Both are there as they were seen: the prompt by the runtime, the completion by the client.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from copy import copy

import msgspec

from governed_api.governance import Labelling
from governed_serving.access.directory import Known
from governed_serving.completions.conversation import Spoken, last_spoken
from governed_serving.completions.labelling import AnswerLabel, asks_json
from governed_serving.hosting.logs import log
from governed_serving.server.chat import explaining
from governed_serving.server.chat import request as requests
from governed_serving.server.chat.answers import AnswerMask
from governed_serving.server.chat.attributes import Attributes, parameters_of
from governed_serving.server.chat.conversation import Conversation, State
from governed_serving.server.chat.events import DONE, error_event, promise_event
from governed_serving.server.chat.request import Message
from governed_serving.server.chat.runtime import Runtime, RuntimeStream
from governed_serving.server.errors import Headers, InvalidRequest, RuntimeBusy, ServerError, UpstreamFailed
from governed_serving.server.explanation import ExplainedCompletion, Explainer
from governed_serving.server.messages import Completed, Stream
from governed_serving.server.pipeline import NOT_RECORDED, Pipeline, Recorded

__all__ = ["ChatGateway"]

UNREAD_SECONDS = 10.0
AT_ONCE = 4096
"""Characters of an answer, or of a chunk, that are masked without a thread: a fraction of a millisecond."""
PATIENCE = 0.5
"""Seconds that the explainer waits for a moment without requests, each time."""


class ChatGateway:
    """Governs ``runtime``. ``attributes``: those that are journalled for the auditor, and protected ones kept from the
    runtime. ``labelling``: how answers are labelled."""

    def __init__(
        self,
        pipeline: Pipeline,
        runtime: Runtime,
        attributes: Attributes | None = None,
        *,
        labelling: Labelling | None = None,
    ) -> None:
        self.pipeline = pipeline
        self._runtime, self._attributes, self._labelling = runtime, attributes, labelling
        self._model = pipeline.identity.model
        self._internal = asyncio.Semaphore(1)

    async def answer(
        self, path: str, body: bytes, request_id: str = "", *, promise: bool = False, caller: Known | None = None
    ) -> Completed | Stream:
        """A whole completion, or a stream of server-sent events; ``promise``: with a signed one. Raises
        ServerError."""
        with self.pipeline.counting("chat"):
            call = self._decoded(path, body, request_id, caller)
            call.promise = promise
            if promise:
                self.pipeline.check_promise()
            return await self._run(call)

    async def explain(
        self, body: bytes, request_id: str = "", *, later: bool, caller: Known | None = None
    ) -> ExplainedCompletion:
        """A governed completion and its explanation, or a ticket for it. Raises ServerError."""
        with self.pipeline.counting("explain") as counted:
            explained = await self._explain(body, request_id, caller, later=later)
            counted.status = explained.answer.status
            return explained

    async def _explain(self, body: bytes, request_id: str, caller: Known | None, *, later: bool) -> ExplainedCompletion:
        explainer = self.explaining()
        path, asked, options = explaining.taken_apart(body)
        call = self._decoded(path, asked, request_id, caller)
        _spoken(requests.prompt_text(path, call.message))
        answer = await self._run(call)
        assert isinstance(answer, Completed), "streams were refused"
        completion = explaining.first_text(answer.body)
        completion = completion if call.label is None else call.label.without(completion)
        question = explaining.question(call.id, _spoken(call.prompt), completion, options)
        return ExplainedCompletion(call.id, await explainer.explain(question, later=later))

    def limits(self, caller: Known | None = None) -> Headers:
        """What answers tell of the quota."""
        return self.pipeline.limits(caller)

    def explaining(self) -> Explainer:
        """Raises NotFound for a model without explainer."""
        return self.pipeline.explaining()

    async def internal(self, path: str, body: bytes) -> bytes:
        """The runtime's own answer to the explainer: neither admitted nor masked nor journalled. One at a time, when no
        request is open, or after ``PATIENCE`` seconds behind requests. Raises ServerError."""
        message = requests.decode(path, body, self._model, masked=False)
        message["model"] = self._runtime.model
        async with self._internal:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.pipeline.idle.wait(), PATIENCE)
            return await self._runtime.post(path, message)

    def _decoded(self, path: str, body: bytes, request_id: str, caller: Known | None) -> Conversation:
        """The request, unmasked and not admitted. Raises InvalidRequest, NotFound."""
        message = requests.decode(path, body, self._model, masked=self.pipeline.masks_requests)
        message["model"] = self._runtime.model
        caller_attributes = {} if caller is None else caller.attributes
        attributes = self._attributes.taken(message, caller_attributes) if self._attributes else {}
        call = Conversation(self.pipeline.new_id(), path, message, attributes, request_id)
        call.caller = caller
        if self._labelling is not None:
            choices = requests.choices(path, message)
            call.label = AnswerLabel(self._labelling, call.id, choices=choices, as_json=asks_json(message))
        return call

    async def _run(self, call: Conversation) -> Completed | Stream:
        pipeline = self.pipeline
        await pipeline.admit_shared(call)
        try:
            await self._mask(call)
            await pipeline.take_slot(call)
            call.began = pipeline.clock()
            await self._record(call, "started", 0)
            if call.message.get("stream"):
                return await self._stream(call)
            return await self._whole(call)
        except (InvalidRequest, UpstreamFailed, RuntimeBusy) as error:
            await self._end(call, "cut", record=False)
            raise await self._hidden(error) from error
        except BaseException:
            await self._end(call, "cut", record=False)
            raise

    async def _hidden(self, error: ServerError) -> ServerError:
        """What a runtime says of a failure is an answer, too."""
        if self.pipeline.masking is None or not self.pipeline.masks_answers:
            return error
        hidden = copy(error)
        covered = self.pipeline.masking.covered
        said = await asyncio.to_thread(covered, str(error)) if self._asks_a_model else covered(str(error))
        hidden.args = (said.text,)
        return hidden

    async def _mask(self, call: Conversation) -> None:
        """From here on ``call`` is what the runtime and the journal may see."""
        if self.pipeline.masking is not None and self.pipeline.masks_answers:
            call.mask = AnswerMask(self.pipeline.masking)
        if self.pipeline.masks_requests:
            places = [*requests.places(call.message), *call.attributes.items(), ("id", call.client_id)]
            spoken = [k for k, (place, _) in enumerate(places) if requests.SPOKEN.fullmatch(place)]
            covered = await self.pipeline.mask([text for _, text in places], spoken)
            for (place, _), one in zip(places, covered, strict=True):
                if counts := one.counts():
                    by_entity = call.masked.setdefault(place, {})
                    by_entity.update({entity: by_entity.get(entity, 0) + times for entity, times in counts.items()})
            *rest, call.client_id = [one.text for one in covered]
            masked = iter(rest)
            call.message = requests.with_places(call.message, masked)
            call.attributes = dict(zip(call.attributes, masked, strict=True))
        call.prompt = requests.prompt_text(call.path, call.message)
        if self.pipeline.counts_tokens(call.caller):
            # under the older name too: a runtime that knows only that one would go on and on
            call.message["max_tokens"] = call.max_tokens
        if self._attributes is not None:
            call.attributes |= parameters_of(call.message)

    async def _whole(self, call: Conversation) -> Completed:
        decoded = await self._runtime.complete(call.path, call.message)
        if call.mask is not None:
            call.completion.measure(decoded)
            decoded = await self._masked(call.mask.whole, decoded)
        if call.label is not None:
            if call.mask is None:
                call.completion.measure(decoded)
            decoded = call.label.whole(decoded)
        call.completion.take(decoded, measured=call.mask is not None or call.label is not None)
        promise = await self._completed(call)
        decoded["model"] = self._model
        body = msgspec.json.encode(decoded)
        return Completed(call.id, body, promise, call.label.header if call.label else "")

    async def _completed(self, call: Conversation) -> str:
        """End ``call``; the promise of its record, if it asks for one or the spec does. Raises what _end raises, and
        PromiseUnavailable."""
        recorded = await self._end(call, "complete", record=True)
        return recorded.promise(call.id) if call.promise else recorded.promises.get(call.id, "")

    async def _masked(self, mask: Callable[[Message], Message], answer: Message) -> Message:
        """What is long is masked off the event loop, and whatever a model looks at. Raises MaskingFailed."""
        try:
            size = sum(map(len, requests.strings(answer)))
            apart = size > AT_ONCE or self._asks_a_model
            return await asyncio.to_thread(self._together, mask, answer) if apart else mask(answer)
        finally:
            self.pipeline.count_masking_failures()

    @property
    def _asks_a_model(self) -> bool:
        return self.pipeline.masking is not None and self.pipeline.masking.names is not None

    def _together(self, mask: Callable[[Message], Message], answer: Message) -> Message:
        """The texts of one answer, or chunk, share the budget for names."""
        assert self.pipeline.masking is not None, "asked where answers are masked"
        with self.pipeline.masking.request():
            return mask(answer)

    async def _stream(self, call: Conversation) -> Stream:
        given = call.message.get("stream_options")
        options = given if isinstance(given, dict) else {}
        call.message["stream_options"] = {**options, "include_usage": True}
        answer = await self._runtime.stream(call.path, call.message)
        # a client that leaves before the first piece never starts the generator: then nobody else would end the call
        unread = asyncio.get_running_loop().call_later(
            UNREAD_SECONDS, lambda: self.pipeline.spawn(self._close(answer, call))
        )
        pieces = self._pieces(answer, call, bool(options.get("include_usage")), unread)
        return Stream(call.id, pieces, call.label.header if call.label else "")

    async def _pieces(
        self, answer: RuntimeStream, call: Conversation, asked: bool, unread: asyncio.TimerHandle
    ) -> AsyncIterator[bytes]:
        """``asked``: the client wants to see the usage."""
        unread.cancel()
        try:
            async with contextlib.aclosing(answer.chunks()) as chunks:
                async for chunk in chunks:
                    if call.mask is not None:
                        call.completion.measure(chunk)
                        if chunk.get("usage") and not chunk.get("choices") and (rest := await self._rest(call)):
                            yield rest  # the usage comes last
                        chunk = await self._masked(call.mask.chunk, chunk)
                    for given in self._given(call, chunk):
                        if asked or given.get("choices") or "usage" not in given:
                            yield self._event(given)
            if call.mask is not None and call.mask.holds and (rest := await self._rest(call)):
                yield rest
            for given in call.label.end() if call.label is not None else ():
                call.completion.take(given, measured=True)
                yield self._event(given)
            if promise := await self._completed(call):
                yield promise_event(call.id, self._model, promise, chat=call.path == requests.CHAT)
            yield DONE
        except ServerError as error:
            log("warning", "a stream was cut", kind=type(error.__cause__ or error).__name__)
            yield error_event(str(await self._hidden(error) if isinstance(error, UpstreamFailed) else error))
        finally:
            # The client may have left: what was generated is still recorded and settled, in a task that can't be
            # cancelled with us.
            if not call.ended:
                self.pipeline.metrics.count["streams_cut"] += 1
            self.pipeline.spawn(self._close(answer, call))

    async def _rest(self, call: Conversation) -> bytes:
        """An event of what was held back of an answer that is over; b"": nothing was. Raises MaskingFailed."""
        if call.mask is None:
            return b""
        rest = await asyncio.to_thread(call.mask.rest) if self._asks_a_model else call.mask.rest()
        if rest is None:
            return b""
        return b"".join(map(self._event, self._given(call, rest)))

    def _given(self, call: Conversation, chunk: Message) -> list[Message]:
        """What the client gets of a chunk, labelled and taken down; a label isn't counted as the model's tokens."""
        if call.label is None:
            call.completion.take(chunk, measured=call.mask is not None)
            return [chunk]
        if call.mask is None:
            call.completion.measure(chunk)
        chunks = call.label.chunk(chunk)
        for one in chunks:
            call.completion.take(one, measured=True)
        return chunks

    def _event(self, chunk: Message) -> bytes:
        chunk["model"] = self._model
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"

    async def _close(self, answer: RuntimeStream, call: Conversation) -> None:
        await answer.aclose()
        await self._end(call, "cut", record=True)

    async def _end(self, call: Conversation, state: State, *, record: bool) -> Recorded:
        """Record what was generated, settle, and leave, once. Raises JournalUnavailable, MaskingFailed, Unavailable."""
        if call.ended:
            return NOT_RECORDED
        call.ended = True
        pipeline, recorded = self.pipeline, NOT_RECORDED
        pipeline.free_slot(call)
        used = call.completion.tokens(call.prompt_tokens) if record else 0
        try:
            if record:
                recorded = await self._record(call, state, used)
        finally:
            try:
                await pipeline.settle(call, used)
            finally:
                if pipeline.leave(call):
                    pipeline.metrics.seconds.observe(pipeline.clock() - call.since)
        return recorded

    async def _record(self, call: Conversation, state: State, tokens: int) -> Recorded:
        """Only what completes an answer is promised."""
        if not self.pipeline.journalled:
            return NOT_RECORDED
        texts = [call.completion.text]
        if self._attributes is not None and (answer := self._judged(call)) != texts[0]:
            texts.append(answer)
        seconds = self.pipeline.clock() - call.began
        frame = call.frame(self.pipeline.identity, state, texts, tokens, seconds=seconds)
        asking = [call.id] if call.promise and state == "complete" else []
        return await self.pipeline.record(frame, promised=asking, final=state == "complete")

    @staticmethod
    def _judged(call: Conversation) -> str:
        """The answer that a pattern is searched in: a label is none of the model's words."""
        answer = call.completion.answer
        return answer if call.label is None else call.label.without(answer)

    async def close(self) -> None:
        """Wait for what is open, drop connections."""
        await self.pipeline.close()
        await self._runtime.close()


def _spoken(prompt: str) -> Spoken:
    """What is to be explained of a prompt. Raises InvalidRequest."""
    spoken = last_spoken(prompt)
    if spoken is None:
        raise InvalidRequest("messages: expected a user's message of plain text to explain, found none")
    return spoken
