"""A search service: text or picture in, hits out. One asynchronous client serves all requests.

pip install fastapi uvicorn
PHOTOS_INDEX=photos uvicorn app:app
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from opensearchpy import AsyncOpenSearch

from stair_es import AsyncImageSearch, StairError
from stair_es.errors import DecodeError, QueryError
from stair_es.search import SearchResult

MAX_BYTES = 20_000_000
logger = logging.getLogger(__name__)


@asynccontextmanager
async def open_search(app: FastAPI) -> AsyncIterator[None]:
    """Load the model before the first request."""
    index = os.environ.get("PHOTOS_INDEX", "photos")
    async with AsyncOpenSearch(os.environ["STAIR_ES_URL"]) as client, AsyncImageSearch(index, client=client) as images:
        await images.load_encoder()
        app.state.images = images
        yield


app = FastAPI(lifespan=open_search)


@app.get("/search")
async def search_by_text(
    request: Request, text: Annotated[str, Query(min_length=1, max_length=500)], k: Annotated[int, Query(ge=1, le=100)] = 10
) -> dict[str, Any]:
    """Search by a text, with the operators of `stair-es search`."""
    return describe_result(await request.app.state.images.search(text, k))


@app.post("/search")
async def search_by_picture(request: Request) -> dict[str, Any]:
    """Search by the bytes of a picture, which are the body of the request."""
    picture = b""
    async for part in request.stream():
        picture += part
        if len(picture) > MAX_BYTES:
            raise HTTPException(413, f"the picture is larger than {MAX_BYTES:,} bytes")
    return describe_result(await request.app.state.images.search(picture))


@app.exception_handler(StairError)
async def answer_error(_: Request, error: StairError) -> JSONResponse:
    """Answer what the user can change with 422 and a message. Other errors name the cluster: they are for the log."""
    if isinstance(error, QueryError | DecodeError):
        return JSONResponse({"code": error.code, "message": error.message}, 422)
    logger.error("%s", error)
    return JSONResponse({"code": error.code, "message": "the search isn't available"}, 503)


def describe_result(result: SearchResult) -> dict[str, Any]:
    """Return the hits, and what the model did not know."""
    return {
        "hits": [
            {"uri": hit.uri, "score": hit.score, "weak": hit.weak, "tokens": [part.token for part in hit.contributions]}
            for hit in result.hits
        ],
        "unknown_words": [word.word for word in result.unknown_words],
        "remarks": result.remarks,
    }
