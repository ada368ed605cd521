"""The same questions inside a notebook."""

from html import escape
from typing import Any

from reward_design._optional import require
from reward_design.preferences.clips import animation
from reward_design.preferences.person import Questionnaire

LABELS = {"first": "Left", "second": "Right", "equal": "Equally good", "skip": "Cannot tell", "back": "Take back"}


def preference_widget(questionnaire: Questionnaire, *, title: str = "Which is better?", fps: float | int = 12.0) -> Any:
    """Two clips side by side with buttons, for a notebook; answers are in ``questionnaire.given``.

    Args:
        questionnaire: what is asked.
        title: the question, in words; shown as it is.
        fps: of the clips.

    Returns:
        A widget of ipywidgets, shown by putting it on the last line of a cell. Its attribute ``buttons`` has the
        buttons by answer.

    Raises:
        ImportError: without the extra ``notebooks``.
    """
    widgets = require("ipywidgets", "notebooks", "preference widgets")
    heading = widgets.HTML()
    images = [widgets.Image(format="gif", layout=widgets.Layout(width="49%")) for _ in range(2)]
    buttons = {answer: widgets.Button(description=label) for answer, label in LABELS.items()}

    def show() -> None:
        question = questionnaire.question()
        done, total = len(questionnaire.given), len(questionnaire.questions)
        heading.value = (
            f"<b>{escape(title)}</b> {done} of {total}" if question else f"<b>All {total} questions answered.</b>"
        )
        for image, index in zip(images, question[1:] if question else ()):
            image.value = animation(questionnaire.clips[index].frames, fps=fps)
        for answer, button in buttons.items():
            button.disabled = done == 0 if answer == "back" else question is None

    def clicked(answer: str) -> None:
        question = questionnaire.question()
        if answer == "back":
            questionnaire.take_back()
        elif question is not None:
            questionnaire.give(question.number, answer)
        show()

    for answer, button in buttons.items():
        button.on_click(lambda _, answer=answer: clicked(answer))
    show()
    box = widgets.VBox([heading, widgets.HBox(images), widgets.HBox(list(buttons.values()))])
    box.buttons = buttons
    return box
