"""An endpoint that parses a body and answers a constant: what the server itself costs.

`python constant.py PORT`, run by a project, whose server and parser it takes.
"""

import json
import sys

import uvicorn
from fastapi import FastAPI, Request, Response

app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> Response:
    """Answer any JSON."""
    json.loads(await request.body())
    return Response('{"predictions": [0]}', media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), access_log=False, server_header=False)
