"""Asks a language model behind any OpenAI-compatible endpoint for edits. Knows nothing of checks, journals or data sets."""

from collections.abc import Iterable, Iterator

from ..chat import HUGGING_FACE_ROUTER, Answer, ChatClient, Refused, as_answer, response_formats
from ..errors import UserError
from .asking import ANSWER_SCHEMA, chat_messages
from .editors import EditRequest


__all__ = ["HUGGING_FACE_ROUTER", "RESPONSE_FORMATS", "ChatEditor", "as_answer"]

RESPONSE_FORMATS = response_formats(ANSWER_SCHEMA)


class ChatEditor:
    """Sends many requests at once, and never more than `concurrency`; see [`ChatClient`] for how.

    Args:
        model: name of the model at the endpoint; it stands in the data set's column `editor`.
        base_urls: one or more equal endpoints; each request goes to the least busy one, and to another one if that fails.
        api_key: sent to the endpoints, and nowhere else.
        timeout: seconds that one whole answer may take.
        max_retries: of each request at each endpoint.
        options: further parameters of the request, such as `temperature`.
        extra_body: parameters that only some servers know, such as `{"chat_template_kwargs": {"enable_thinking": false}}`.
    """

    def __init__(
        self,
        model: str,
        base_urls: tuple[str, ...] = (HUGGING_FACE_ROUTER,),
        api_key: str | None = None,
        concurrency: int = 32,
        timeout: float = 120.0,
        max_retries: int = 5,
        options: dict | None = None,
        extra_body: dict | None = None,
    ):
        self.name = model
        self.client = ChatClient(model, base_urls, api_key, concurrency, timeout, max_retries, options, extra_body)

    def edit(self, requests: Iterable[EditRequest]) -> Iterator[tuple[EditRequest, Answer]]:
        """Yields answers as they come in. Connections are open as long as this runs.

        Raises:
            UserError: if the endpoint will never answer: wrong key, no such model, no credit.
        """
        try:
            yield from self.client.complete(
                (request, chat_messages(request.caption, request.wanted, request.rejected), ANSWER_SCHEMA)
                for request in requests
            )
        except Refused as error:
            raise UserError(f"{error}: no answer that came is lost") from None
