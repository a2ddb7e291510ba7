"""A model of somebody else's, as MLflow's documentation shows how to write one: items, and deltas before them."""

from __future__ import annotations

from collections.abc import Generator

from mlflow.models import set_model
from mlflow.pyfunc.model import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse, ResponsesAgentStreamEvent


class Foreign(ResponsesAgent):
    """Says hello, and fails when it is asked to."""

    def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        events = list(self.predict_stream(request))
        return ResponsesAgentResponse(output=[e.item for e in events if e.type == "response.output_item.done"])

    def predict_stream(self, request: ResponsesAgentRequest) -> Generator[ResponsesAgentStreamEvent, None, None]:
        for piece in ("Hello ", "there."):
            yield ResponsesAgentStreamEvent(**self.create_text_delta(piece, "msg_1"))
        if (request.custom_inputs or {}).get("fail"):
            raise RuntimeError("the provider's secret")
        item = self.create_text_output_item("Hello there.", "msg_1")
        yield ResponsesAgentStreamEvent(type="response.output_item.done", item=item)


set_model(Foreign())
