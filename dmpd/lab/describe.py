"""What a message says, in words for people."""

from collections.abc import Sequence

from msgspec import UNSET, structs

from dmpd.model.messages import Change, Checkpoint, Closed


def describe(message: Change | Checkpoint | Closed) -> Sequence[str]:
    """One short phrase per thing that ``message`` sets, removes or ends; never empty."""
    if isinstance(message, Closed):
        return [f"closed: {message.reason}"]
    if isinstance(message, Checkpoint):
        return [f"checkpoint, {message.record.state}"]
    said = []
    for name, value in structs.asdict(message.patch).items():
        if value is UNSET:
            continue
        if name == "attributes":
            said += [f"{key}={bytes(text).decode()[:30]}" for key, text in value.items()]
        else:
            said.append(f"{name} {value}" if isinstance(value, str) else name)
    return [*said, *(f"-{key}" for key in message.unset)] or ["nothing visible"]
