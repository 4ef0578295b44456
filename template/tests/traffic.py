"""Steady requests, and a status that says whether all were answered: `python tests/traffic.py URL --seconds 60`.

Open loop: a request is sent when it is due, whatever became of those before. Needs nothing but Python, so that it can
run in a pod of the service's image.
"""

import argparse
import http.client
import json
import sys
import time
import urllib.parse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

BODY = json.dumps({"instances": [{"text": "The delivery was late again."}]}).encode()
TIMEOUT_S = 30


def outcome(url: str) -> str:
    """`200`, or what went wrong. Each request has a connection of its own, as it comes from another caller."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_S)
    try:
        connection.request("POST", parts.path, BODY, {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        return "200" if answer.status == http.client.OK else f"{answer.status} {text[:200]!r}"
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("url", help="where predictions are asked for")
    parser.add_argument("--rate", type=float, default=5, help="requests a second (default: 5)")
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: 60)")
    options = parser.parse_args()
    started_s, sent = time.monotonic(), []
    with ThreadPoolExecutor(max_workers=100) as pool:
        for number in range(int(options.rate * options.seconds)):
            time.sleep(max(0.0, started_s + number / options.rate - time.monotonic()))
            sent.append(pool.submit(outcome, options.url))
    outcomes = Counter(each.result() for each in sent)
    failed = len(sent) - outcomes["200"]
    print(f"{len(sent)} requests, {failed} failed")
    for text, times in outcomes.most_common(10):
        print(f"{times:6} {text}")
    return int(failed > 0 or not sent)


if __name__ == "__main__":
    sys.exit(main())
