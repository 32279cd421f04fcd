"""What whoever hosts a study meets: health, the log, a stop in order, the container's files."""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml
from fastapi.testclient import TestClient

from study_database import fresh_postgresql
from study_plan import write_tiny_study
from study_session import browser, event, fields, practise, sign
from torchxnn.apps.server_log import LOGGER, Unnamed
from torchxnn.apps.study.export import read_tables
from torchxnn.apps.study.server.app import create_app
from torchxnn.apps.study.settings import MAIN
from torchxnn.cli.commands import parse as parse_command
from torchxnn.cli.study_secrets import ADMIN_TOKEN, DATABASE, admin_token, database_url
from torchxnn.cli.study_serve import Serve

REPOSITORY = Path(__file__).parents[3]
DEPLOY = REPOSITORY / "deploy"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("study")
    write_tiny_study(path, keys=("birds",))
    return path


@pytest.fixture
def app(made, tmp_path):
    for part in made.iterdir():
        (tmp_path / part.name).symlink_to(part)
    app = create_app(tmp_path, admin_token="a-token-of-the-admin")
    yield app
    app.state.site.database.close()


def break_database(app, monkeypatch):
    """Every query fails, and its message quotes what was asked for."""
    from sqlalchemy.exc import OperationalError

    def fail(*_):
        raise OperationalError("SELECT", {"person": "ada"}, Exception("no ada here"))

    for name in ("reading", "writing"):
        monkeypatch.setattr(app.state.site.database, name, fail)


# --- health and the log


def test_health_tells_whether_the_database_answers(app, monkeypatch):
    client = browser(app)
    answer = client.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"database": "ok"})
    break_database(app, monkeypatch)
    answer = client.get("/health")
    assert (answer.status_code, answer.json()) == (503, {"database": "failed"})


def test_health_is_below_the_base_path_and_beside_it(made):
    app = create_app(made, base_path="/study-a")
    for path in ("/health", "/study-a/health"):
        assert TestClient(app).get(path).status_code == 200
    app.state.site.database.close()


def test_log_names_the_failure_and_nobody(app, monkeypatch, caplog):
    client = practise(app, PROLIFIC_PID="ada-lovelace", SESSION_ID="0f3c2a9d7e")
    break_database(app, monkeypatch)
    with caplog.at_level(logging.INFO, LOGGER):
        assert client.get("/resume/a-personal-token").status_code == 503
        assert client.get("/stage/0").status_code == 503
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert lines[0] == "GET /resume/{token} failed with 503: OperationalError"
    assert len(lines) == 2
    assert not re.search("ada|0f3c|personal|127|testclient", "".join(lines))


def test_tracebacks_quote_nobody():
    try:
        try:
            raise KeyError("ada")
        except KeyError as error:
            raise ValueError("answer of ada") from error
    except ValueError:
        text = Unnamed("%(message)s").formatException(sys.exc_info())
    assert "test_study_hosting.py" in text
    assert text.endswith("ValueError\nbecause of KeyError")


def test_other_loggers_say_where_and_not_what():
    code = """
import logging.config
from torchxnn.apps.server_log import LOG
logging.config.dictConfig(LOG)
logging.getLogger("asyncio").info("ada came")
try:
    raise ValueError("answer of ada")
except ValueError as error:
    logging.getLogger("asyncio").error("Task of ada failed: %r", error, exc_info=True)
logging.getLogger("torchxnn.server").info("the study is served")
"""
    lines = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stderr.splitlines()
    assert lines[0].endswith("ERROR of asyncio at <string>.<module>")
    assert lines[-2] == "ValueError"
    assert lines[-1].endswith("INFO the study is served")
    assert "ada" not in " ".join(lines)


# --- a stop in order


@pytest.fixture
def started(app):
    """The study of `app` served by a process of its own, and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torchxnn.cli", "study", "serve"]
    process = subprocess.Popen(
        [
            *command,
            str(app.state.site.folder),
            "--port",
            str(port),
            "--admin-token",
            "a-token-of-the-admin",
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    for _ in range(600):  # a busy machine takes its time
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.2)
    yield process, port
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_answers_in_flight_are_kept_when_the_server_is_told_to_stop(app, started):
    process, port = started
    client = practise(app)  # on the same database: what the other server keeps is seen here
    image = client.get("/api/stages/0").json()["images"][0]["id"]
    body = json.dumps({"events": [event("move", 1, image, group=2, how="drag")]}).encode()
    headers = {
        "Host": "x",
        "Content-Length": str(len(body)),
        "Content-Type": "application/json",
        "Cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items()),
        **sign(client),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(f"POST /api/stages/0/events HTTP/1.1\r\n{head}\r\n".encode() + body[:9])
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/health")  # nobody new is let in
        connection.sendall(body[9:])
        answer = connection.recv(4096).decode()
    _, log = process.communicate(timeout=20)
    assert answer.startswith("HTTP/1.1 200"), answer
    shown = {each["id"]: each["group"] for each in client.get("/api/stages/0").json()["images"]}
    assert shown[image] == 2
    assert [line.split(" ", 1)[1] for line in log.splitlines() if " INFO " in line] == [
        "INFO the study is served",
        "INFO the study is served no more",
    ]


# --- the container: it cannot be built here, so what can be read is compared with the commands


def fill(text):
    """A compose file's ${NAME:-default} and ${NAME:?message} as compose fills them in."""
    values = {"POSTGRES_PASSWORD": "secret1", "ADMIN_TOKEN": "a-token-of-the-admin"}
    found = re.sub(
        r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}", lambda m: values.get(m[1], m[2] or ""), text
    )
    assert "${" not in found
    return found


def parse(arguments):
    """Arguments of `xnn study` as the command line reads them."""
    return parse_command(["study", *arguments]).job


def docker_lines():
    """Instructions of the Dockerfile: (name, rest), continued lines put together."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [tuple(line.split(" ", 1)) for line in lines if line and not line.startswith("#")]


def test_compose_starts_the_study_as_the_command_line_reads_it():
    services = yaml.safe_load(fill((DEPLOY / "compose.yaml").read_text()))["services"]
    study, database = services["study"], services["database"]
    job = parse(study["command"])
    assert isinstance(job, Serve)
    assert (job.study, job.host, job.port) == (Path("/study"), "0.0.0.0", 8000)
    assert (job.database, job.admin_token) == (None, None)  # no secret on the command line
    assert study["environment"] == {
        DATABASE: "postgresql+pg8000://study:secret1@database/study",
        ADMIN_TOKEN: "a-token-of-the-admin",
    }
    named = database["environment"]
    assert named["POSTGRES_USER"] == named["POSTGRES_DB"] == "study"
    assert study["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert (DEPLOY / study["build"]["context"] / study["build"]["dockerfile"]).is_file()
    assert services["web"]["command"][-1] == f"study:{job.port}"


def test_secrets_come_from_the_environment_where_the_command_line_names_none(monkeypatch):
    assert (database_url(None), admin_token(None)) == (None, None)
    monkeypatch.setenv(DATABASE, "sqlite:///elsewhere.db")
    monkeypatch.setenv(ADMIN_TOKEN, "a-long-secret")
    assert (database_url(None), admin_token(None)) == ("sqlite:///elsewhere.db", "a-long-secret")
    assert (database_url("sqlite:///a.db"), admin_token("b")) == ("sqlite:///a.db", "b")


def test_compose_waits_longer_for_the_stop_than_the_server_takes():
    from torchxnn.cli.terminal import STOP_SECONDS

    services = yaml.safe_load(fill((DEPLOY / "compose.yaml").read_text()))["services"]
    assert int(services["study"]["stop_grace_period"].rstrip("s")) > STOP_SECONDS


def test_dockerfile_copies_what_is_there_and_starts_a_command_that_exists():
    lines = docker_lines()
    last = dict(lines)
    assert json.loads(last["ENTRYPOINT"]) == ["xnn", "study"]
    job = parse(json.loads(last["CMD"]))
    assert (job.study, job.host, job.port) == (Path("/study"), "0.0.0.0", int(last["EXPOSE"]))
    copied = [rest.split() for name, rest in lines if name == "COPY" and "--from" not in rest]
    for *sources, _ in copied:
        assert all((REPOSITORY / source).exists() for source in sources)
    let_in = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert {f"!{source}" for *sources, _ in copied for source in sources} <= set(let_in)
    health = json.loads(last["HEALTHCHECK"].split("CMD", 1)[1])
    compile(health[2], "healthcheck", "exec")
    assert f"127.0.0.1:{job.port}/health" in health[2]


def test_several_servers_share_a_study_on_postgresql(tmp_path):
    """Places are never given twice, and whoever begins at one server goes on at another."""
    given = os.environ.get("TORCHXNN_TEST_POSTGRESQL")
    if not given:
        pytest.skip("TORCHXNN_TEST_POSTGRESQL names no database; .ci/run starts one")
    url = fresh_postgresql(given)
    arm = MAIN.model_copy(update={"participants": 6})
    write_tiny_study(tmp_path, keys=("birds",), arms=(arm,), demographics=False)
    apps = [create_app(tmp_path, url, admin_token="a-token-of-the-admin") for _ in range(2)]

    for app in apps:  # FastAPI puts its routes together at the first request, not in threads
        page = browser(app).get("/")
        assert page.status_code == 200
        browser(app).post("/start", data={**fields(page)})

    def come(number):
        """Join at one server, and ask the other one for the next page."""
        client = browser(apps[number % 2])
        page = client.get("/", params={"PROLIFIC_PID": f"p{number}"})
        if page.status_code == 409:
            return "full"
        sent = {**fields(page), "agree": "yes"}
        page = client.post("/start", data=sent)
        other = browser(apps[1 - number % 2])
        other.cookies = client.cookies
        return page.url.path, other.get("/next").url.path, page.status_code

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(come, range(12)))
    begun = [each for each in found if each == ("/instructions", "/instructions", 200)]
    assert len(begun) == 6, found
    tables = read_tables(apps[0].state.site.database, apps[0].state.site.plan)
    assert sorted(tables["participants"]["slot"]) == list(range(6))
    admin = browser(apps[0])
    admin.post("/admin", data={"token": "a-token-of-the-admin"})
    other = browser(apps[1])
    other.cookies = admin.cookies
    assert other.get("/admin").status_code == 200
    for app in apps:
        app.state.site.database.close()
