"""A parametric whole-body CT with labels, made of analytic shapes: data for demonstrations and tests, from nobody."""

from .make import Phantom, make_phantom
from .plan import BodyPlan, Region

__all__ = ["BodyPlan", "Phantom", "Region", "make_phantom"]
