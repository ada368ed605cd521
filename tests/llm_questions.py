"""Something to ask a model, and a model of a scripted server that asks it."""

from reward_design.llm import Retry, chat_model

ASK = [{"role": "user", "content": "Was the key picked up?"}]
SCHEMA = {
    "type": "object",
    "properties": {"achieved": {"type": "boolean"}, "evidence": {"type": "string"}},
    "required": ["achieved", "evidence"],
    "additionalProperties": False,
}
QUICK = Retry(retries=1, first=0.01)


def model(server, **settings):
    settings = {"retries": QUICK, "time_limit": 5.0, "max_tokens": 50, **settings}
    return chat_model("m", base_url=server.url, **settings)
