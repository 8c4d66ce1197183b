"""Routes that start a build, in a process of its own, and report its status."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from fastapi import APIRouter

from nextedge.api.models import TrainingOut, TrainingRequest
from nextedge.api.tenants import CurrentTenant, Tenant
from nextedge.errors import InputError

FOLDER = "training"
_ID = re.compile(r"[0-9a-f]{32}")
_TAIL = 2000


def routes() -> APIRouter:
    """The routes of the caller's tenant."""
    router = APIRouter(tags=["training"])

    @router.post("/v1/training", status_code=202)
    def start(tenant: CurrentTenant, request: TrainingRequest) -> TrainingOut:
        """Start a build; 202 with its id. Only one runs at a time: a second fails and says so."""
        recommender = tenant.recommender
        for surface in request.surfaces:
            recommender.config.surface(surface)
        if recommender.location is None:
            raise InputError("this tenant was made of frames in memory: build it where they are")
        return _started(recommender.location, _folder(tenant), request)

    @router.get("/v1/training/{training_id}")
    def status(tenant: CurrentTenant, training_id: str) -> TrainingOut:
        """How a build goes, and the release that it made."""
        path = _folder(tenant) / f"{training_id}.json"
        # the id is part of a path: it must not lead out of the folder
        if not _ID.fullmatch(training_id) or not path.exists():
            raise InputError(f"no training {training_id!r}")
        report: dict[str, Any] = json.loads(path.read_text())
        # a server that stopped meanwhile did not write the end of the build
        if report["status"] == "running" and not _alive(report["process"]):
            report["status"] = "lost"
        return TrainingOut.model_validate(report)

    return router


def _folder(tenant: Tenant) -> Path:
    return tenant.recommender.config.state_path / FOLDER


def _started(location: Path, folder: Path, request: TrainingRequest) -> TrainingOut:
    folder.mkdir(parents=True, exist_ok=True)
    training_id = uuid.uuid4().hex
    command = [sys.executable, "-m", "nextedge", "build", "-c", str(location), "--json"]
    for surface in request.surfaces:
        command += ["--surface", surface]
    command += [] if request.promote else ["--no-promote"]
    # a session of its own: Ctrl-C at the server does not reach the build
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    about: dict[str, Any] = {
        "id": training_id,
        "status": "running",
        "started": time.time(),
        "process": process.pid,
    }
    _write(folder, about)
    threading.Thread(target=_wait, args=(process, folder, about), daemon=True).start()
    return TrainingOut.model_validate(about)


def _wait(process: subprocess.Popen[str], folder: Path, about: dict[str, Any]) -> None:
    out, err = process.communicate()
    about |= {"ended": time.time(), "status": "done" if process.returncode == 0 else "failed"}
    if process.returncode == 0:
        about["release"] = json.loads(out)["release"]
    else:
        # progress comes first on stderr, the error last
        about["message"] = err.strip()[-_TAIL:]
    _write(folder, about)


def _write(folder: Path, about: dict[str, Any]) -> None:
    partial = folder / f".{about['id']}.partial"
    partial.write_text(json.dumps(about))
    # a status request reads a whole report, the old or the new one
    os.replace(partial, folder / f"{about['id']}.json")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True
