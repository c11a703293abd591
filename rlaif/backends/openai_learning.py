"""What is learnt of OpenAI-compatible servers before the first call: what they are, and how they write labels.

No completion is asked for: `/version` and `/models` once per replica, and `/tokenize` once per set of labels where the
server has it. What the answers mean stands in `openai_servers.py`.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from rlaif.backends import openai_servers as servers
from rlaif.backends.openai_connection import Connection, Replica, to_json
from rlaif.backends.openai_replies import Endpoint
from rlaif.backends.openai_servers import LabelPlan, LongLabel, Server, ServerKind
from rlaif.errors import BackendError, ServerFaultError, TransientBackendError


class Learner:
    """Knows the servers of a connection, and how each set of labels is asked for.

    Args:
        connection: To the servers.
        model: Its name, as the servers know it.
        endpoint: Which one is asked.
        extra_body: Further fields of every request.
        say: Told of what was chosen.

    Attributes:
        server: What all replicas are and can do; None until it was learnt.
        plans: The plans made so far.
    """

    def __init__(
        self,
        connection: Connection,
        model: str,
        endpoint: Endpoint,
        extra_body: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._model = model
        self._endpoint = endpoint
        self._extra_body = extra_body
        self._say = say
        self._reads_ids = True
        self._running: dict[object, asyncio.Task[None]] = {}
        self.server: Server | None = None
        self.plans: dict[tuple[str, ...], LabelPlan] = {}

    async def learn_server(self) -> Server:
        """What the servers are, asked once.

        Raises:
            ServerFaultError: None of them is there.
        """
        if self.server is None:
            await self._once("server", self._look_at_all)
        assert self.server is not None
        return self.server

    async def plan(self, labels: tuple[str, ...]) -> LabelPlan:
        """How a set of labels is asked for, settled before its first call.

        Raises:
            TransientBackendError: The server is not there, or not any more.
        """
        server = await self.learn_server()
        while labels not in self.plans:
            await self._once(labels, lambda: self._make_plan(server, labels))
        return self.plans[labels]

    def give_up_ids(self) -> None:
        """A reply showed that the server gives no log-probabilities by token id: forget the plans that count on it."""
        if self._reads_ids:
            self._reads_ids = False
            self.plans.clear()
            self._say("the server gives no log-probabilities by token id; the likeliest tokens are read instead")

    async def aclose(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _once(self, what: object, learn: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Learn one thing for all calls that wait for it; one that is cancelled does not stop it for the others."""
        task = self._running.get(what)
        if task is None:
            task = self._running[what] = asyncio.create_task(learn())
            task.add_done_callback(lambda _: self._running.pop(what, None))
        try:
            await asyncio.shield(task)
        except BackendError as error:
            raise copy.copy(error) from None  # each row's own: the engine writes into it

    # --- what the servers are -----------------------------------------------------------------------------------------

    async def _look_at_all(self) -> None:
        """Look at all replicas. One that is not there says nothing, and is taken to be as the others."""
        replicas = [replica for replica in self._connection.replicas if not replica.is_hosted]
        found = await asyncio.gather(*map(self._look_at, replicas))
        there = [server for server in found if isinstance(server, Server)]
        if found and not there:
            raise next(fault for fault in found if isinstance(fault, ServerFaultError))
        if len(replicas) < len(self._connection.replicas):
            there.append(servers.UNKNOWN_SERVER)
        self.server = servers.in_common(there)
        if len({(server.kind, server.version) for server in there}) > 1:
            kinds = ", ".join(sorted({str(server) for server in there}))
            self._say(f"the replicas differ ({kinds}); only what all of them can do is used")

    async def _look_at(self, replica: Replica) -> Server | ServerFaultError:
        paths = (servers.VERSION_PATH, servers.MODELS_PATH)
        try:
            version, models = await asyncio.gather(*(self._connection.look(replica, path) for path in paths))
        except ServerFaultError as fault:
            return fault
        return servers.recognise(version, models, self._model)

    # --- how labels are written ---------------------------------------------------------------------------------------

    async def _make_plan(self, server: Server, labels: tuple[str, ...]) -> None:
        plan = await self._exact_plan(labels) if server.has_exact_logprobs and self._reads_ids else None
        if plan is None:
            long = servers.long_label(labels)
            plan = LabelPlan(labels) if long is None else await self._plan_with_long_label(server, labels, long)
        self.plans[labels] = plan
        if server.kind is not ServerKind.UNKNOWN:
            self._say_plan(server, plan)

    async def _exact_plan(self, labels: tuple[str, ...]) -> LabelPlan | None:
        requests = servers.variant_requests(self._model, labels)
        if self._endpoint == "chat":
            requests += servers.reply_requests(self._model, labels, self._extra_body)
        bodies = await asyncio.gather(*map(self._tokenize, requests))
        spelling = servers.spelling_from([body for body in bodies if body is not None], labels)
        return LabelPlan(labels, spelling) if spelling is not None and self._reads_ids else None

    async def _plan_with_long_label(self, server: Server, labels: tuple[str, ...], long: LongLabel) -> LabelPlan:
        requests = [servers.tokenize_request(server.kind, self._model, text) for text in (long.head, long.label)]
        bodies = await asyncio.gather(*map(self._tokenize, requests))
        head, label = bodies
        is_split = None if head is None or label is None else servers.takes_two_tokens(head, label)
        if is_split is False:
            return LabelPlan(labels)
        if self._endpoint == "completions":  # the prompt plus the first half, on any server
            return LabelPlan(labels, None, long, follows=True)
        # Without the server's word that the label takes two tokens a second call is not made: the label may be a
        # token of its own that is just not among the likeliest, and P("0" | "1") would say nothing of it.
        can_continue = servers.continuing_fields(server.kind) is not None
        return LabelPlan(labels, None, long, follows=can_continue and is_split is True)

    async def _tokenize(self, request: Mapping[str, Any] | None) -> bytes | None:
        """The body of `/tokenize`; None where the server has none for this request."""
        if request is None:
            return None
        try:
            return (await self._connection.post(servers.TOKENIZE_PATH, to_json(request)))[0]
        except TransientBackendError as error:
            if isinstance(error, ServerFaultError) and " answered 50" in str(error):
                return None  # a fault of its own, now and later
            raise
        except BackendError:
            return None

    def _say_plan(self, server: Server, plan: LabelPlan) -> None:
        where = ", ".join(replica.shown for replica in self._connection.replicas)
        long: Sequence[str] = ()
        if plan.exact is not None:
            how = "exact log-probabilities of the labels"
            long = [split.heads[0].text.strip() + split.tail for split in plan.exact.splits]
        else:
            how = "log-probabilities of the likeliest tokens"
            if plan.long is not None and plan.follows:
                long = [plan.long.label]
        self._say(f"{where} is {server}: {how}{f', replies continued for the {long[0]}' if long else ''}")
