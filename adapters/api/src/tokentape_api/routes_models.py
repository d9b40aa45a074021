"""Models over all their calls."""

from __future__ import annotations

from fastapi import APIRouter

from . import models as shapes
from .answers import All, Ask
from .problems import ProblemRoute

routes = APIRouter(tags=["models"], route_class=ProblemRoute)


@routes.get("/models", response_model=shapes.Models)
async def models(
    ask: Ask,
    every: All = False,
) -> object:
    """All models, most used first."""
    return {"models": await ask(lambda tape: tape.models(every=every))}
