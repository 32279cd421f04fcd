"""A participant without a browser, for tests of the site and of what it stores."""

import re

from fastapi.testclient import TestClient

HIDDEN = re.compile(r'<input[^>]*type="hidden"[^>]*>')


def browser(app):
    return TestClient(app, base_url="http://study.test", follow_redirects=True)


def fields(page):
    """Hidden fields of a page's form."""
    found = {}
    for tag in HIDDEN.findall(page.text):
        pairs = dict(re.findall(r'(name|value)="([^"]*)"', tag))
        found[pairs["name"]] = pairs["value"]
    return found


def join(app, **parameters):
    """A participant who has just agreed, and the page after it."""
    client = browser(app)
    form = fields(client.get("/", params=parameters))
    page = client.post("/start", data={**form, "agree": "yes"})
    assert page.status_code == 200
    return client, page


def practise(app, **parameters):
    """A participant at the practice round, with `csrf` set."""
    client, page = join(app, **parameters)
    page = client.post("/about-you", data={**fields(page), "age": ""})
    page = client.post("/instructions", data=fields(page))
    assert page.url.path == "/stage/0"
    client.csrf = client.get("/api/stages/0").json()["csrf"]
    return client


def sign(client):
    """The header that scripts send."""
    return {"X-CSRF-Token": client.csrf}


def event(name, number, image=None, ms=10.0, **value):
    """An event with an id made of a number."""
    return {"id": f"{number:016x}", "type": name, "image": image, "value": value, "ms": ms}


def send(client, position, events):
    """Send events to a batch."""
    path = f"/api/stages/{position}/events"
    return client.post(path, json={"events": events}, headers=sign(client))


def sort(client, position, group=lambda place, image: place % 4 + 1):
    """Place every picture of a batch and hand it in."""
    images = client.get(f"/api/stages/{position}").json()["images"]
    events = [
        event("move", 1000 * (position + 1) + n, i["id"], 1000.0 * n, group=group(n, i), how="drag")
        for n, i in enumerate(images)
    ]
    assert send(client, position, events).json()["saved"] == [each["id"] for each in events]
    return client.post(f"/api/stages/{position}/submit", headers=sign(client))


def finish(client, trials, group=lambda place, image: place % 4 + 1, attention="3", **more):
    """From the practice round to the end; the answer is the last page."""
    page = client.get(sort(client, 0).json()["next"])
    for position in range(1, trials + 1):
        page = client.get(sort(client, position, group).json()["next"])
        given = {"confidence": "5", "attention": attention}
        page = client.post(f"/stage/{position}/confidence", data={**fields(page), **given})
    ratings = {"rating_one_heatmap": 3, "rating_xnn": 6, "difficulty": 4, "comments": "<b>fine</b>"}
    return client.post("/ratings", data={**fields(page), **ratings, **more})
