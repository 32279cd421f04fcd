"""An empty PostgreSQL database of its own for every test."""

import os
import time


def fresh_postgresql(url):
    from sqlalchemy import create_engine, text

    name = f"test_{os.getpid()}_{time.time_ns()}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{url.rpartition('/')[0]}/{name}"
