"""Captions from an endpoint in the form of OpenAI's chat completions (vLLM, Ollama, llama.cpp, hosted models), kept in a file."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import orjson
import urllib3
from PIL import Image

from stair_es.errors import DecodeError, ReadError, SourceError
from stair_es.retry import BUSY_STATUSES
from stair_es.sources.http.urls import redact_web_url
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.training.data.dataset import ProblemCounter, TrainingPair, read_image_bytes
from stair_es.types import ImageSpec

API_KEY_VARIABLE = "OPENAI_API_KEY"
_SPEC = ImageSpec(size_px=512)
_MAX_TOKENS, _MAX_CHARS = 100, 2000
_REQUESTS = 8
"""Requests at the same time."""
_TIMEOUT_S = 120.0
_RETRIES = urllib3.Retry(
    total=6, read=1, backoff_factor=0.5, status_forcelist=BUSY_STATUSES, allowed_methods=None, raise_on_status=False
)
_REPORT_EVERY = 100
_MAX_FAILED = 10
"""Images in a row for which the endpoint gives no caption, before the training gives up."""


class _NoCaption(Exception):
    """The endpoint gave no caption for an image."""


class Captioner:
    """Asks an endpoint for captions, and keeps them by the bytes of the image, so that a later run needn't ask again."""

    def __init__(self, url: str, model: str, prompt: str, folder: Path) -> None:
        """Read the captions of earlier runs.

        Args:
            url: Base URL: `http://localhost:8000/v1`.
            model: Name of the model; empty for the first that the endpoint lists.
            prompt: What is asked.
            folder: Folder of the kept captions.

        Raises:
            SourceError: If the model is asked for, and the endpoint doesn't answer.
        """
        self._url, self._prompt = url.rstrip("/"), prompt
        key = os.environ.get(API_KEY_VARIABLE)
        self._pool = urllib3.PoolManager(
            maxsize=_REQUESTS,
            headers={"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})},
            retries=_RETRIES,
            timeout=urllib3.Timeout(connect=10.0, read=_TIMEOUT_S),
        )
        self._model = model or self._find_model()
        name = hashlib.sha256(orjson.dumps((self._model, prompt))).hexdigest()[:16]
        self._file = folder / f"captions-{name}.jsonl"
        self._kept = _read_captions(self._file)
        self._lock = Lock()

    def add_captions(
        self, pairs: Iterable[TrainingPair], problems: ProblemCounter, progress: Callable[[int], None]
    ) -> Iterator[TrainingPair]:
        """Yield the pairs in order, those without a caption with one from the endpoint.

        Args:
            pairs: Pairs, with or without captions.
            problems: Gets the images that can't be read, or get no caption.
            progress: Called with the number of images that were captioned.

        Raises:
            SourceError: If the endpoint can't be reached or refuses, or gives no caption for many images in a row.
        """
        done, failed = 0, 0
        for pair, caption in self._iterate_captions(pairs):
            if pair.captions:
                yield pair
                continue
            done, failed = done + 1, failed + 1 if isinstance(caption, _NoCaption) else 0
            if failed == _MAX_FAILED:
                raise SourceError(
                    f"{self._describe()} gives no caption for {failed} images in a row: {caption}",
                    "Check the endpoint and data.captions_model; the captions until now are kept.",
                    code="captions-failed",
                )
            if done % _REPORT_EVERY == 0:
                progress(done)
            if isinstance(caption, Exception):
                problems.add_problem(pair.name, str(caption))
            else:
                yield pair._replace(captions=(caption,))
        if done:
            progress(done)

    def _iterate_captions(self, pairs: Iterable[TrainingPair]) -> Iterator[tuple[TrainingPair, str | Exception]]:
        waiting = deque[tuple[TrainingPair, Future[str | Exception] | None]]()
        pool = ThreadPoolExecutor(_REQUESTS, thread_name_prefix="captions")
        try:
            for pair in pairs:
                waiting.append((pair, None if pair.captions else pool.submit(self._caption_image, pair)))
                if len(waiting) >= 2 * _REQUESTS:
                    first, future = waiting.popleft()
                    yield first, future.result() if future else ""
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result() if future else ""
        finally:
            pool.shutdown(cancel_futures=True)

    def _caption_image(self, pair: TrainingPair) -> str | Exception:
        """Return the caption of an image, or why it has none."""
        try:
            data = read_image_bytes(pair.locator)
            digest = hashlib.sha256(data).hexdigest()
            if digest not in self._kept:
                self._keep(digest, self._request_caption(_encode_jpeg(data)))
            return self._kept[digest]
        except (ReadError, DecodeError, _NoCaption) as error:
            return error

    def _keep(self, digest: str, caption: str) -> None:
        with self._lock:
            self._kept[digest] = caption
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab") as file:  # a killed run may have cut the line before it
                file.write(b"\n" + orjson.dumps({"sha256": digest, "caption": caption}) + b"\n")

    def _request_caption(self, jpeg: bytes) -> str:
        image = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"}}
        message = {"role": "user", "content": [{"type": "text", "text": self._prompt}, image]}
        body = {"model": self._model, "messages": [message], "max_tokens": _MAX_TOKENS, "temperature": 0}
        status, value = self._send("POST", "/chat/completions", orjson.dumps(body))
        try:
            text = " ".join(value["choices"][0]["message"]["content"].split())[:_MAX_CHARS]
        except (KeyError, IndexError, TypeError, AttributeError):
            text = ""
        if status != 200 or not text:
            raise _NoCaption(f"no caption from the endpoint: status {status}, {str(value)[:200]}")
        return text

    def _find_model(self) -> str:
        _, value = self._send("GET", "/models", None, _RETRIES.new(connect=1))  # it may not run yet: say so at once
        try:
            return str(value["data"][0]["id"])
        except (KeyError, IndexError, TypeError):
            raise SourceError(
                f"{self._describe()} lists no model", "Give the model: data.captions_model.", code="captions-failed"
            ) from None

    def _send(self, method: str, path: str, body: bytes | None, retries: urllib3.Retry = _RETRIES) -> tuple[int, Any]:
        """Send a request; return status and parsed body.

        Raises:
            SourceError: If the endpoint can't be reached, or refuses the key or the path.
        """
        try:
            response = self._pool.request(method, self._url + path, body=body, retries=retries)
        except urllib3.exceptions.HTTPError as error:
            raise SourceError(
                f"{self._describe()} can't be reached: {type(error).__name__}",
                "Start it, or correct --captions-from; the captions until now are kept.",
                code="captions-unreachable",
            ) from error
        if response.status in (401, 403, 404):
            raise SourceError(
                f"{self._describe()} answers {response.status} for {path}",
                f"Set {API_KEY_VARIABLE} if it needs a key, and give the URL up to /v1.",
                code="captions-refused",
            )
        try:
            return response.status, orjson.loads(response.data)
        except orjson.JSONDecodeError:
            return response.status, response.data[:200].decode("utf-8", "replace")

    def _describe(self) -> str:
        return f"the endpoint of captions {redact_web_url(self._url)}"


def _encode_jpeg(data: bytes) -> bytes:
    """Return the image, at most 512 px on its longer side, as JPEG: every endpoint reads it, and more pixels cost more."""
    decoded = decode_image(data, _SPEC, DecodeLimits())
    buffer = io.BytesIO()
    Image.fromarray(decoded.pixels_HWC).crop(decoded.box).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _read_captions(file: Path) -> dict[str, str]:
    """Return the kept captions by the hash of the image's bytes; a line that a killed run cut is left out."""
    kept = dict[str, str]()
    if file.is_file():
        for line in filter(None, file.read_bytes().splitlines()):
            try:
                row = orjson.loads(line)
                kept[str(row["sha256"])] = str(row["caption"])
            except (orjson.JSONDecodeError, KeyError, TypeError):
                continue
    return kept
