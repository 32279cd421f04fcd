"""Columns of the exported tables: name -> (type, meaning). The data dictionary is made of this."""

from __future__ import annotations

TYPES = {"integer": "Int64", "number": "Float64", "text": "string", "yes/no": "boolean"}
"""Types of the dictionary and how pandas calls them; all of them know missing values."""

Column = tuple[str, str]

_PARTICIPANT: dict[str, Column] = {
    "participant": ("integer", "number of the participant"),
    "arm": ("text", "group of participants with the same stages"),
    "kind": ("text", "participant, pilot, or synthetic (simulated)"),
}
_BATCH: dict[str, Column] = {
    **_PARTICIPANT,
    "position": ("integer", "place of the batch in the session, from 1; 0 is the practice round"),
    "data_set": ("text", "key of the data set"),
    "stage": ("text", "NoVis, 1-Heatmap or XNN"),
}

COLUMNS: dict[str, dict[str, Column]] = {
    "participants": {
        **_PARTICIPANT,
        "slot": ("integer", "place in the design, from 0; gives all draws with the study's seed"),
        "status": ("text", "in_progress, finished, expired (silent for too long), withdrawn"),
        "language": ("text", "of the pages"),
        "consent_version": ("text", "of the text that was agreed to"),
        "consented_at": ("text", "when consent was given, ISO 8601"),
        "finished_at": ("text", "when the last page was sent, ISO 8601"),
        "expired_at": ("text", "when the place was given away after long silence, ISO 8601"),
        "seconds": ("number", "from consent to the end"),
        "input": ("text", "mouse, touch, pen or keyboard: what most moves were made with"),
        "inputs": ("text", "all that moves were made with, and how many, most first"),
        "screen_width": ("integer", "CSS pixels"),
        "screen_height": ("integer", "CSS pixels"),
        "age": ("text", "age band, if asked and answered"),
        "gender": ("text", "if asked and answered"),
        "computer_science": ("text", "courses in computer science, if asked and answered"),
        "ai_courses": ("text", "courses in artificial intelligence, if asked and answered"),
        "attention_passed": ("yes/no", "whether the attention check was answered as told"),
        "difficulty": ("integer", "of grouping the pictures, 0 (easy) to 7 (hard)"),
        "rating_one_heatmap": ("integer", "agent with one heatmap, 1 very poor to 7 very good"),
        "rating_xnn": ("integer", "agent with several heatmaps, 1 very poor to 7 very good"),
        "comments": ("text", "free text"),
        "pasted": ("integer", "characters that were pasted into it, if the consent text says so"),
        "parameters": ("text", "recruitment parameters of the link, JSON"),
    },
    "trials": {
        **_BATCH,
        "method": ("text", "attribution method of the heatmaps; none in NoVis"),
        "shows": ("text", "what stood beside the pictures: none, maps, numbers, or both"),
        "set": ("integer", "number of the batch among those of the data set"),
        "learned": ("integer", "number of the batch shown before with the network's answers, or 0"),
        "started_at": ("text", "when the page was first opened, ISO 8601"),
        "submitted_at": ("text", "when the batch was handed in, ISO 8601"),
        "seconds": ("number", "between the two"),
        "active_seconds": ("number", "of it, visible and with no pause over 60 s counted"),
        "confidence": ("integer", "that all pictures are grouped correctly, 1 zero to 7 100%"),
        "seen": ("integer", "odd cue: pictures seen before the answer"),
        "cue": ("text", "odd cue: the cue that was chosen; empty for I cannot tell"),
        "cue_right": ("yes/no", "odd cue: whether it is the planted one"),
        "words": ("text", "odd cue: what the network looks at, in the participant's own words"),
        "moves": ("integer", "times that a picture was put into a group or back"),
        "toggles": ("integer", "times that heatmaps were switched"),
        "zooms": ("integer", "times that the large view was opened or closed"),
    },
    "placements": {
        **_BATCH,
        "set": ("integer", "number of the batch among those of the data set"),
        "image": ("text", "id of the picture"),
        "group": (
            "integer",
            "group that it was put into, whose number carries no meaning; in forward simulation "
            "the predicted answer, 1 for the first class of the data set; with the odd cue 1, for "
            "seen",
        ),
        "predicted": ("text", "class that the network predicts, among those of the study"),
        "label": ("text", "true class"),
    },
    "events": {
        "participant": ("integer", "number of the participant"),
        "position": ("integer", "place of the batch in the session; 0 is the practice round"),
        "at": ("text", "when it reached the server, ISO 8601"),
        "client_ms": ("number", "milliseconds since the page was opened"),
        "type": ("text", "what happened"),
        "image": ("text", "id of the picture, if it was about one"),
        "value": ("text", "details, JSON"),
    },
    "images": {
        "data_set": ("text", "key of the data set"),
        "image": ("text", "id of the picture"),
        "set": ("integer", "batch that it belongs to"),
        "predicted": ("text", "class that the network predicts, among those of the study"),
        "label": ("text", "true class"),
        "file": ("text", "where the picture came from"),
    },
}
